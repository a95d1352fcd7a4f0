# SPDX-License-Identifier: Apache-2.0
"""What the registry holds: instances, and the records of them (pure).

Anybody who may write to the registry may write anything into it. So a record
is checked before it is used, and what is of no use in it costs nothing but a
warning.
"""

import dataclasses
import ipaddress
import re
from collections.abc import Iterable
from typing import Any

import msgpack

from zmq_threaded import texts

# Bytes of a record, and of the file of one.
LONGEST = 1 << 18
# Of a record, and of the mark of a registry: see epochs.py.
EPOCH = 'epoch'
_LONGEST_EPOCH = 16
_MOST_INSTANCES, _MOST_ENDPOINTS, _LONGEST_TEXT = 1000, 16, 4096
_LONGEST_ENDPOINT = 300
# Bytes of the path of a Unix socket.
_LONGEST_PATH = 107
_HOST_NAME = re.compile(r'[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?')
_KEY = re.compile(rb'[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}')
_ZONE = re.compile(r'[A-Za-z0-9_.-]{1,15}')


@dataclasses.dataclass(frozen=True)
class Instance:
    """One listening service.

    :ivar id: 16 random bytes, new for each start of a service
    :ivar endpoints: ZeroMQ endpoints, the preferred first
    :ivar pool: of a notification listener, '' for none
    :ivar receiver: the endpoints are those of its node's receiver
    :ivar two_messages: it replies in two messages, for which a REQ is no good
    :ivar host: rpc_zmq_host of its node, '' if its record does not say
    :ivar server: the server of its target, '' for a notification listener
    :ivar sparing: it has few descriptors: a client process should make do
        with one connection
    :ivar limit: bytes that a message to it may have, 0 if it does not say
    :ivar key: public key (Z85 text) of its TCP port, b'' for an open one
    :ivar epoch: of the registry when the record was put there, b'' if the
        record does not say; see epochs.py. Two instances with different
        epochs may be equal.

    Thread: any.
    """

    id: bytes
    endpoints: tuple[str, ...]
    pool: str = ''
    receiver: bool = False
    two_messages: bool = False
    host: str = ''
    server: str = ''
    sparing: bool = False
    limit: int = 0
    key: bytes = b''
    epoch: bytes = dataclasses.field(default=b'', compare=False)

    def __str__(self) -> str:
        # For the log: whoever may write to the registry wrote these.
        who = texts.line(self.server, texts.NAME) or 'a listener'
        where = f' on {texts.line(self.host, texts.NAME)}' if self.host else ''
        return f'{who}{where} (instance {self.id.hex()})'


class Malformed(Exception):
    """A record, or an instance in it, is of no use; the text says why.

    Thread: any.
    """


def encode(instances: Iterable[Instance]) -> dict[str, Any]:
    """The record of those instances of one process that share a key.

    :returns: what msgpack can write; small, for clients read thousands
    """
    return {'instances': [_fields(instance) for instance in sorted(
        instances, key=lambda instance: instance.id)]}


def unpack(raw: bytes) -> Any:
    """What msgpack wrote, of its own types only. Nothing is made of an
    extension, which may mean an endless iterator.

    :raises: Malformed
    """
    if len(raw) > LONGEST:
        raise Malformed(f'it has {len(raw)} bytes')
    try:
        return msgpack.unpackb(raw, raw=False, strict_map_key=True,
                               max_array_len=_MOST_INSTANCES)
    except Exception as error:
        # It raises what it likes; its texts may have the content in them.
        raise Malformed(
            f'it is no msgpack ({type(error).__name__})') from None


def decode(record: Any) -> list[Instance]:
    """As sift(), but only the instances that are of use."""
    return sift(record)[0]


def sift(record: Any) -> tuple[list[Instance], list[Malformed]]:
    """The instances of a record, and what is wrong with the others.

    :param record: as encode() made it, or unpacked, or packed; or Malformed,
        where it could not even be read
    :raises: Malformed
    """
    if isinstance(record, Malformed):
        raise record
    if isinstance(record, bytes):
        record = unpack(record)
    listed = record.get('instances') if isinstance(record, dict) else None
    if not isinstance(listed, list):
        raise Malformed('it is no record of ours')
    if len(listed) > _MOST_INSTANCES:
        raise Malformed(f'it has {len(listed)} instances')
    began = epoch(record)
    good: list[Instance] = []
    bad: list[Malformed] = []
    for fields in listed:
        try:
            good.append(_instance(fields, began))
        except Malformed as problem:
            bad.append(problem)
    return good, bad


def epoch(record: Any) -> bytes:
    """That which an unpacked record has, b'' for none."""
    told = record.get(EPOCH) if isinstance(record, dict) else None
    return (told if isinstance(told, bytes) and len(told) <= _LONGEST_EPOCH
            else b'')


def _fields(instance: Instance) -> dict[str, Any]:
    optional = {
        'pool': instance.pool, 'receiver': instance.receiver,
        'replies': 2 if instance.two_messages else 0, 'host': instance.host,
        'server': instance.server, 'limit': instance.limit,
        'sparing': instance.sparing, 'key': instance.key}
    return {'id': instance.id, 'endpoints': list(instance.endpoints),
            **{name: value for name, value in optional.items() if value}}


def _instance(fields: Any, began: bytes) -> Instance:
    if not isinstance(fields, dict):
        raise Malformed('an instance has no fields')
    number = fields.get('id')
    if not isinstance(number, bytes) or len(number) != 16:
        raise Malformed('an instance has no id of 16 bytes')
    return Instance(number, _endpoints(fields.get('endpoints')),
                    _text(fields, 'pool'), bool(fields.get('receiver')),
                    fields.get('replies') == 2, _text(fields, 'host'),
                    _text(fields, 'server'), bool(fields.get('sparing')),
                    _limit(fields.get('limit')), _key(fields), began)


def _key(fields: dict[str, Any]) -> bytes:
    """Not b'' for one that cannot be read: that would mean an open port."""
    key = fields.get('key', b'')
    if not isinstance(key, bytes) or key and not _KEY.fullmatch(key):
        raise Malformed('the key of an instance is no public key')
    return key


def _limit(limit: Any) -> int:
    return limit if isinstance(limit, int) and limit > 0 else 0


def _text(fields: dict[str, Any], name: str) -> str:
    text = fields.get(name, '')
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise Malformed(f'the {name} of an instance is no text, or too long')
    return text


def _endpoints(listed: Any) -> tuple[str, ...]:
    """Those that can be connected to; others may be of a later release."""
    if not isinstance(listed, list) or len(listed) > _MOST_ENDPOINTS:
        raise Malformed('the endpoints of an instance are no list, or a long '
                        'one')
    problems = [problem_of(each) for each in listed]
    good = tuple(each for each, problem in zip(listed, problems)
                 if not problem)
    if not good:
        raise Malformed(problems[0] if problems
                        else 'an instance has no endpoint')
    return good


def problem_of(endpoint: Any) -> str:
    """Why nobody can connect to an endpoint; '' if perhaps somebody can."""
    if not isinstance(endpoint, str):
        return 'an endpoint is no text'
    if len(endpoint) > _LONGEST_ENDPOINT or not endpoint.isprintable():
        return 'an endpoint is too long, or not printable'
    transport, _, address = endpoint.partition('://')
    if transport == 'ipc':
        return _problem_of_path(address)
    if transport == 'tcp':
        return _problem_of_address(address)
    return f'{endpoint!r} is neither ipc:// nor tcp://'


def _problem_of_path(path: str) -> str:
    if not path.startswith('/'):
        return f'ipc://{path} has no absolute path'
    if len(path.encode('utf-8', 'surrogatepass')) > _LONGEST_PATH:
        return f'ipc://{path} is too long'
    return ''


def _problem_of_address(address: str) -> str:
    host, _, port = address.rpartition(':')
    if not (port.isascii() and port.isdigit() and len(port) <= 5
            and 0 < int(port) < 65536):
        return f'tcp://{address} has no port from 1 to 65535'
    if not _is_host(host):
        return f'tcp://{address} has no name or address of a host'
    return ''


def _is_host(host: str) -> bool:
    if not (host.startswith('[') and host.endswith(']')):
        return bool(_HOST_NAME.fullmatch(host)) and host != '0.0.0.0'
    address, percent, zone = host[1:-1].partition('%')
    try:
        return (not ipaddress.IPv6Address(address).is_unspecified
                and (not percent or bool(_ZONE.fullmatch(zone))))
    except ValueError:
        return False
