# SPDX-License-Identifier: Apache-2.0
"""Signals that come while the main thread waits."""

import contextlib
import signal
import threading

_DEADLINE = 20.0


@contextlib.contextmanager
def interrupting(when, handler):
    """Call a handler by a signal, in the main thread, once.

    :param when: run by a thread of its own; the signal comes when it returns
    """
    main = threading.main_thread().ident

    def interrupt():
        when()
        signal.pthread_kill(main, signal.SIGUSR1)
    before = signal.signal(signal.SIGUSR1, lambda *_: handler())
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(_DEADLINE)
        signal.signal(signal.SIGUSR1, before)
