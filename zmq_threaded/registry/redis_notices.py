# SPDX-License-Identifier: Apache-2.0
"""Which topics of a redis have changed, told by the process that has changed
them: it publishes the key of the topic, to those who have subscribed to it.

The subscription has one connection, beside the one that reads and writes. It
is made with the first look-up, so a process that only serves has none.
"""

import contextlib
from collections.abc import Collection
from typing import Any

from zmq_threaded.registry import notices as noticing

_CHANNEL = 'zmq_threaded:'
# Seconds. A look-up waits for the subscription of its topic.
_TIMEOUT = 1.0
_LONGEST_NUMBER = 6


class RedisNotices(noticing.Readable):
    """The channels of the topics that somebody looks up.

    Thread: as notices.Notices says.
    """

    def __init__(self) -> None:
        self._connection: Any = None
        self._keys: dict[bytes, str] = {}
        self._forgotten: list[bytes] = []

    def watch(self, coordinator: Any, key: str) -> bool:
        """As Notices says."""
        channel = _channel(key)
        with contextlib.suppress(ValueError):
            self._forgotten.remove(channel)
        if self._connection is not None and channel in self._keys:
            self._listen()
            return False
        if self._connection is None:
            self._connect(coordinator)
        with self._dropped_if_it_fails():
            self._send('SUBSCRIBE', channel)
            self._keys[channel] = key
            while self._read_one() != (b'subscribe', channel):
                pass
            self._listen()
        return True

    def _connect(self, coordinator: Any) -> None:
        from redis import backoff
        from redis import retry
        self._keys, self._forgotten = {}, []
        # Not make_connection(), which counts it as one of the pool's.
        pool = coordinator._client.connection_pool
        made = pool.connection_class(**pool.connection_kwargs)
        made.socket_timeout = made.socket_connect_timeout = _TIMEOUT
        # It must not connect again by itself: the descriptor would be
        # another one, and the subscriptions gone.
        made.retry = retry.Retry(backoff.NoBackoff(), 0)
        made.health_check_interval = 0
        self._connection = made
        with self._dropped_if_it_fails():
            made.connect()
            self.fd = made._sock.fileno()
            noticing.keep_alive(made._sock)

    @contextlib.contextmanager
    def _dropped_if_it_fails(self) -> Any:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _send(self, *command: Any) -> None:
        if self._connection._sock is None:
            raise ConnectionError('the connection was closed')
        self._connection.send_command(*command, check_health=False)

    def read(self) -> None:
        """As Notices says. A subscription that has ended is made again with
        the next look-up.
        """
        if self._connection is None:
            return
        with self._dropped_if_it_fails():
            while self._connection.can_read(0):
                self._read_one()
            self._unsubscribe()
            self._listen()

    def _read_one(self) -> tuple[bytes, bytes]:
        """:returns: what it is, and of which channel"""
        connection = self._connection
        # Of RESP3, where it comes unasked for.
        pushed = ({'push_request': True} if str(
            getattr(connection, 'protocol', 2)) == '3' else {})
        read = connection.read_response(**pushed)
        if not isinstance(read, list) or len(read) < 3:
            return b'', b''
        kind, channel, said = read[:3]
        if kind == b'message' and channel in self._keys:
            self._tell(self._keys[channel], _number(said))
        return kind, channel

    def announce(self, coordinator: Any, keys: Collection[str]) -> None:
        """As Notices says. Who hears of it, hears also how many do."""
        client = coordinator._client
        channels = [_channel(key) for key in keys]
        for channel, (_, count) in zip(
                channels, client.pubsub_numsub(*channels)):
            if count:
                client.publish(channel, count)

    def forget(self, key: str) -> None:
        """As Notices says; with the next notice that comes."""
        self._forgotten.append(_channel(key))

    def _unsubscribe(self) -> None:
        while self._forgotten:
            channel = self._forgotten.pop()
            if self._keys.pop(channel, None) is not None:
                self._send('UNSUBSCRIBE', channel)

    def close(self) -> None:
        """As Notices says."""
        closing, self._connection = self._connection, None
        self._listen_no_more()
        if closing is not None:
            closing.disconnect()


def _channel(key: str) -> bytes:
    return (_CHANNEL + key).encode()


def _number(said: Any) -> int:
    """Anybody may publish anything."""
    return (int(said) if isinstance(said, bytes) and said.isdigit()
            and len(said) <= _LONGEST_NUMBER else 0)
