# SPDX-License-Identifier: Apache-2.0
"""The topic object: what a Target means to the registry."""

import dataclasses
import functools
from collections.abc import Iterable
from urllib import parse

from zmq_threaded import texts


@dataclasses.dataclass(frozen=True, slots=True)
class Topic:
    """One address under which instances register and are looked up.

    :ivar key: the name of its group in the registry, ASCII. Every part is
        escaped, so that no name can collide with another or be cut.
    """

    exchange: str
    name: str
    server: str | None
    key: str

    def __str__(self) -> str:
        where = (f'{texts.line(self.name, texts.NAME)} (exchange '
                 f'{texts.line(self.exchange, texts.NAME)})')
        return (f'{texts.line(self.server, texts.NAME)} of {where}'
                if self.server else where)


@functools.lru_cache(maxsize=8192)
def rpc(exchange: str, name: str, server: str | None = None) -> Topic:
    """The Topic of a call, cast or fanout.

    :param server: None or '' for any server of the topic
    """
    parts = (exchange, name, server) if server else (exchange, name)
    return Topic(exchange, name, server or None, _key('rpc', parts))


@functools.lru_cache(maxsize=8192)
def notifications(exchange: str, name: str) -> Topic:
    """The Topic of a notification; its instances say which pool is theirs.

    :param name: topic and priority, joined by a dot
    """
    return Topic(exchange, name, None, _key('notify', (exchange, name)))


@functools.lru_cache(maxsize=8192)
def pool(exchange: str, name: str, pool_name: str) -> Topic:
    """The Topic of the listeners of one pool, for one kind of notification.

    :param pool_name: '' for the listeners without a pool, which are one
    """
    return Topic(exchange, f'{name}, pool {pool_name!r}', None,
                 _key('pool', (exchange, name, pool_name)))


def _key(kind: str, parts: Iterable[str]) -> str:
    # ':' never survives quote(); lone surrogates are legal in a Python str.
    return ':'.join([kind, *(parse.quote(part, safe='', errors='surrogatepass')
                             for part in parts)])
