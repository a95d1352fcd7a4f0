# SPDX-License-Identifier: Apache-2.0
"""The end of a process: what is in custody is delivered first.

The threads of the driver end with their process, whatever they hold. So each
orderly end comes by here, and closes all that is open:

* the interpreter's own end, by atexit;
* that of a process of multiprocessing, which runs no atexit, by its Finalize;
* that of a worker of cotyledon (oslo.service's threading back end), and of
  oslo.service with no_fork, which call os._exit() and so pass by both. The
  modules that do so look `os` up when they call it, and find ours.

Their immediate ends (SIGINT, the alarm of graceful_shutdown_timeout) stay
immediate.
"""

import atexit
import functools
import os
import signal
import sys
import time
from multiprocessing import util
from typing import Any

from zmq_threaded import logs
from zmq_threaded import threads
from zmq_threaded.health import meditation

LOG = logs.get(__name__)

# Before the alarm of the host ends the process without a word.
_BEFORE_THE_ALARM = 1.0

# All runtimes of this process, and of its parents if it was forked. What is
# in here is held although its driver was forgotten.
_open: set[Any] = set()
# The processes that have come to their end; and those in which all is done
# that shall be done at the end. Forked children begin anew.
_ending_in, _prepared_in = None, None
# Modules that could not be changed; then listener.stop() has to do.
_strange: set[str] = set()


class _Os:
    """The module os as a host sees it, with an _exit() of ours.

    :param is_orderly: whether an exit code means an orderly end

    Thread: any.
    """

    def __init__(self, is_orderly):
        self._is_orderly = is_orderly

    def __getattr__(self, name):
        return getattr(os, name)

    def _exit(self, status):
        if self._is_orderly(status):
            _close_before_exit()
        os._exit(status)


def add(runtime: Any) -> None:
    """To be closed at the exit of this process."""
    _open.add(runtime)


def discard(runtime: Any) -> None:
    """It was closed."""
    _open.discard(runtime)


def describe() -> dict[str, Any]:
    """What is known of the runtimes of this process, for a Guru Meditation
    Report.
    """
    return {'threads': meditation.threads(), **{
        f'driver {number}': runtime.describe()
        for number, runtime in enumerate(_mine(), 1)}}


def is_ending() -> bool:
    """Whether this process is about to end, and opens nothing any more."""
    return _ending_in == os.getpid()


def prepare() -> None:
    """See to it that no orderly end passes by; to be called now and then, for
    a host may be imported at any time.
    """
    global _prepared_in
    if _prepared_in != os.getpid():
        _prepared_in = os.getpid()
        util.Finalize(None, close_all, exitpriority=10)
    meditation.register(describe)
    for name, (shape, is_orderly) in _HOSTS.items():
        module = sys.modules.get(name)
        if module is not None and name not in _strange:
            _change(module, name, shape, is_orderly)


def server_stopped() -> None:
    """A server has stopped. If it was the last one of a process whose end may
    pass by here, for its host has an unknown shape, this is the time to
    deliver what is in custody.
    """
    if _strange and not any(runtime.is_serving() for runtime in _mine()):
        threads.do_all([runtime.flush_for_exit for runtime in _mine()])


def close_forgotten() -> None:
    """Close what belongs to nobody any more and has nothing left to do."""
    for runtime in _mine():
        runtime.close_if_forgotten()


def close_all(limit: float | None = None) -> None:
    """Deliver what can be delivered and close everything, within one time
    limit for all; nothing is opened any more.

    :param limit: in seconds, if the process has less time than the options
        say
    """
    global _ending_in
    _ending_in = os.getpid()
    began = time.monotonic()
    deadlines = {runtime: began + min(runtime.exit_limit,
                                      runtime.exit_limit if limit is None
                                      else limit)
                 for runtime in _mine()}
    # They wait at the same time, so all hurry from now on.
    for runtime, deadline in deadlines.items():
        runtime.outbox.begin_flush(deadline)
    threads.do_all([
        functools.partial(runtime.close, deadline, is_exit=True)
        for runtime, deadline in deadlines.items()])


def _mine():
    return [runtime for runtime in list(_open) if runtime.pid == os.getpid()]


def _close_before_exit():
    # Whatever happens here, the host wants the process to end.
    try:
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        close_all(max(0.0, left - _BEFORE_THE_ALARM) if left else None)
        logs.flush()
    except BaseException:
        LOG.exception('zmq: an unexpected error at the exit of the process')


def _change(module, name, shape, is_orderly):
    is_being_imported = getattr(module.__spec__, '_initializing', False)
    if is_being_imported or isinstance(module.__dict__.get('os'), _Os):
        return
    if module.__dict__.get('os') is os and shape(module):
        module.os = _Os(is_orderly)
        LOG.debug('zmq: the exit of %s waits for messages', name)
        return
    _strange.add(name)
    LOG.warning('zmq: this version of %s is not known; its processes wait for '
                'messages when their last server stops, and not at their '
                'exit', name)


def _calls_exit(module, *path):
    function = functools.reduce(lambda found, name: getattr(found, name, None),
                                path, module)
    function = getattr(function, '__wrapped__', function)
    code = getattr(function, '__code__', None)
    return code is not None and {'os', '_exit'} <= set(code.co_names)


# Where os._exit() is called: whether the module has the shape that is known,
# and which exit codes mean an orderly end there.
_HOSTS = {
    'cotyledon._utils': (
        lambda module: _calls_exit(module, 'exit_on_exception'),
        lambda status: True),
    'oslo_service.backend._threading.service': (
        lambda module: _calls_exit(module, 'ProcessLauncher',
                                   '_graceful_shutdown'),
        lambda status: status == 0)}

atexit.register(close_all)
