# SPDX-License-Identifier: Apache-2.0
"""What the registry holds: instances, and the records of them (pure)."""

import dataclasses

from zmq_threaded import texts

# Characters of a name in a text.
_SHOWN = 255


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
    """

    id: bytes
    endpoints: tuple
    pool: str = ''
    receiver: bool = False
    two_messages: bool = False
    host: str = ''
    server: str = ''
    sparing: bool = False

    def __str__(self):
        # For the log: whoever may write to the registry wrote these.
        who = texts.line(self.server, _SHOWN) or 'a listener'
        where = f' on {texts.line(self.host, _SHOWN)}' if self.host else ''
        return f'{who}{where} (instance {self.id.hex()})'


class Malformed(Exception):
    """Anybody who may write to the registry may write nonsense into it."""


def encode(instances):
    """The record of those instances of one process that share a key.

    :returns: what msgpack can write; small, for clients read thousands
    """
    return {'instances': [_fields(instance) for instance in sorted(
        instances, key=lambda instance: instance.id)]}


def decode(record):
    """:raises: Malformed
    :returns: list of Instance
    """
    try:
        return [_instance(fields) for fields in record['instances']]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Malformed() from None


def _fields(instance):
    fields = {'id': instance.id, 'endpoints': list(instance.endpoints)}
    if instance.pool:
        fields['pool'] = instance.pool
    if instance.receiver:
        fields['receiver'] = True
    if instance.two_messages:
        fields['replies'] = 2
    if instance.host:
        fields['host'] = instance.host
    if instance.server:
        fields['server'] = instance.server
    if instance.sparing:
        fields['sparing'] = True
    return fields


def _instance(fields):
    instance = Instance(fields['id'], tuple(fields['endpoints']),
                        str(fields.get('pool', '')),
                        bool(fields.get('receiver')),
                        fields.get('replies') == 2,
                        str(fields.get('host', '')),
                        str(fields.get('server', '')),
                        bool(fields.get('sparing')))
    if not (isinstance(instance.id, bytes) and len(instance.id) == 16
            and isinstance(fields['endpoints'], list) and instance.endpoints
            and all(isinstance(each, str) for each in instance.endpoints)):
        raise ValueError()
    return instance
