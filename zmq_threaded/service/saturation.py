# SPDX-License-Identifier: Apache-2.0
"""Says that a service has more to do than it can."""

from collections.abc import Callable

from zmq_threaded import logs

LOG = logs.get(__name__)

# Seconds for which the backlog must be full, and between two warnings.
_FOR_LONG, _WARN_EVERY = 10.0, 60.0


class Saturation:
    """Warns while the backlog of a service stays full.

    A service that is saturated reads on whenever a quarter of its backlog is
    free. So it counts as full until it was not full for a whole second.

    :param name: of the service
    :param waiting: returns how many messages wait

    Thread: poller.
    """

    def __init__(self, name: str, waiting: Callable[[], int],
                 backlog: int) -> None:
        self._name = name
        self._waiting = waiting
        self._backlog = backlog
        self._since: float | None = None
        self._warn_at = 0.0
        self._has_warned = False

    def tick(self, now: float, was_full: bool, workers: int | None) -> None:
        """To be called about once a second.

        :param now: monotonic seconds
        :param was_full: whether the backlog was full since the last tick
        :param workers: threads of the executor, None if unknown
        """
        if not was_full:
            return self._is_over(now)
        if self._since is None:
            self._since, self._warn_at = now, now + _FOR_LONG
        if now >= self._warn_at:
            self._warn_at = now + _WARN_EVERY
            self._has_warned = True
            self._warn(now, workers)
        return None

    def _warn(self, now, workers):
        LOG.warning(
            '%s is saturated: its backlog has been full for %.0f s, %d '
            'messages wait (rpc_zmq_topic_backlog %d) for %s. Its senders '
            'wait or choose other servers. Raise executor_thread_pool_size '
            'if the workers mostly wait for others (a database, an API), or '
            'start more servers on the topic.', self._name,
            now - self._since, self._waiting(), self._backlog,
            'its workers' if workers is None else f'{workers} workers')

    def _is_over(self, now):
        if self._has_warned:
            LOG.info('%s is no longer saturated, after %.0f s; %d messages '
                     'wait', self._name, now - self._since, self._waiting())
        self._since, self._has_warned = None, False
