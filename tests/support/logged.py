# SPDX-License-Identifier: Apache-2.0
"""What was logged, also by the threads of the driver."""

from zmq_threaded import logs


class Logged:
    """pytest's caplog; the driver's threads have their records written by
    another thread, which each look at them waits for.

    Thread: any.
    """

    def __init__(self, caplog):
        self._caplog = caplog

    def __getattr__(self, name):
        logs.flush(5)
        return getattr(self._caplog, name)
