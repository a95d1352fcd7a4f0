# SPDX-License-Identifier: Apache-2.0
"""One message of every kind and variant, and the command that freezes them.

What a recording is expected to mean is what went into it, not what was
decoded from it.
"""

import json
import math
import pathlib
import sys
import uuid

from oslo_messaging._drivers import common

from zmq_threaded import payload
from zmq_threaded import wire
from zmq_threaded.registry import record

HERE = pathlib.Path(__file__).parent
VERSION = f'{wire.MAJOR}.{wire.MINOR}'

INSTANCE, OTHER = b'\x11' * 16, b'\x22' * 16
IDS = [b'process!' + number.to_bytes(8, 'big') for number in (258, 259, 260)]
SETTLED = b'process!' + (7).to_bytes(8, 'big')
DEADLINE = 86400.25

CONTEXT = {'user': 'J\u00f6rg', 'request_id': 'req-1', 'roles': ['admin']}
MESSAGE = {'method': 'echo', 'version': '1.1', 'args': {
    'number': 1 << 40, 'none': None, 'nested': [{'a': 1.5}, True],
    'id': uuid.UUID(int=1)}}
READ = {**MESSAGE, 'args': {**MESSAGE['args'], 'id': str(uuid.UUID(int=1))}}


def sample(kind, body, means, flags=0, instance=INSTANCE, message_id=IDS[0],
           expiry=math.inf, client_timeout=0.0):
    """:param means: what a reader finds in the body; see test_recordings"""
    return {
        'frame': wire.encode(kind, instance, message_id, body, flags, expiry,
                             client_timeout).hex(),
        'fields': {
            'major': wire.MAJOR, 'minor': wire.MINOR, 'kind': kind,
            'flags': flags, 'expiry': repr(expiry), 'instance': instance.hex(),
            'id': message_id.hex(), 'client_timeout': client_timeout,
            'body': [part.hex() for part in body]},
        'means': means}


def _hexed(ids):
    return [each.hex() for each in ids]


def _request(kind, more=(), serialization='json', flags=0, instances=(),
             settled=b'', **fields):
    body, encoding = payload.dump((CONTEXT, MESSAGE), serialization)
    return sample(kind, [*body, *more], {
        'context': CONTEXT, 'message': READ, 'settled': settled.hex(),
        'instances': _hexed(instances or [INSTANCE])},
        flags | encoding, **fields)


def _requests():
    on_host = {'flags': wire.DEADLINE, 'expiry': DEADLINE}
    monitored = {'client_timeout': 20.0}
    kept = {'more': [SETTLED], 'settled': SETTLED, **on_host}
    confirmed = {**kept, 'flags': wire.DEADLINE | wire.CONFIRM}
    several = [INSTANCE, OTHER]
    return {
        'call-deadline': _request(wire.CALL, **on_host),
        'call-seconds-left': _request(wire.CALL, expiry=59.75),
        'call-for-ever': _request(wire.CALL),
        'call-monitored': _request(wire.CALL, **on_host, **monitored),
        'call-msgpack': _request(wire.CALL, serialization='msgpack',
                                 **on_host),
        'cast': _request(wire.CAST, **kept),
        'cast-nothing-settled': _request(wire.CAST, more=[b''], **on_host),
        'cast-confirm': _request(wire.CAST, **confirmed),
        'cast-msgpack': _request(wire.CAST, serialization='msgpack', **kept),
        'notify': _request(wire.NOTIFY, **kept),
        'notify-msgpack-confirm': _request(
            wire.NOTIFY, serialization='msgpack', **confirmed),
        'fanout-to-one': _request(
            wire.FANOUT, more=[b'', SETTLED], settled=SETTLED, **on_host),
        'fanout-to-several': _request(
            wire.FANOUT, more=[wire.join_ids(several), SETTLED],
            settled=SETTLED, instances=several, instance=wire.NO_ID,
            expiry=299.5),
        'fanout-to-several-msgpack-confirm': _request(
            wire.FANOUT, more=[wire.join_ids(several), SETTLED],
            settled=SETTLED, instances=several, instance=wire.NO_ID,
            serialization='msgpack', **{**on_host, 'flags': wire.DEADLINE
                                        | wire.CONFIRM}),
    }


def _failure():
    # Never raised: a traceback would name files of this machine.
    error = ValueError('no such th\u00efng')
    return common.serialize_remote_exception((ValueError, error, None))


def _reply(serialization, flags):
    body, encoding = payload.dump((READ['args'],), serialization)
    return sample(wire.REPLY, body, {'result': READ['args']},
                  encoding | flags)


def _replies():
    failure = _failure()
    failed = {'failure': 'no such th\u00efng'}
    return {
        'reply-with-ending': _reply('json', wire.ENDING),
        'reply-with-ending-msgpack': _reply('msgpack', wire.ENDING),
        'reply-of-two': _reply('json', 0),
        'reply-of-two-msgpack': _reply('msgpack', 0),
        'reply-none': sample(wire.REPLY, payload.dump((None,), 'json')[0],
                             {'result': None}, wire.ENDING),
        'ending': sample(wire.REPLY, [wire.NO_RESULT], {'ending': True},
                         wire.ENDING),
        'failure-with-ending': sample(wire.REPLY, [failure.encode()], failed,
                                      wire.FAILURE | wire.ENDING),
        'failure-of-two': sample(wire.REPLY, [failure.encode()], failed,
                                 wire.FAILURE),
        'heartbeat': sample(wire.HEARTBEAT, [], {}),
    }


def _acknowledgements():
    ids, states = wire.join_ids(IDS), [wire.UNKNOWN, wire.KNOWN,
                                       wire.ACKNOWLEDGED]
    nobody = {'message_id': wire.NO_ID}
    return {
        'ack-one': sample(wire.ACK, [IDS[0]], {'ids': _hexed(IDS[:1])},
                          **nobody),
        'ack-several': sample(wire.ACK, [ids], {'ids': _hexed(IDS)},
                              **nobody),
        'query': sample(wire.QUERY, [ids], {'ids': _hexed(IDS)}, **nobody),
        'query-observe': sample(wire.QUERY, [ids], {'ids': _hexed(IDS)},
                                wire.OBSERVE, **nobody),
        'status': sample(wire.STATUS, [ids, bytes(states)], {'states': [
            [each.hex(), state] for each, state in zip(IDS, states)]},
            **nobody),
        'nack-to-query': _nack(wire.GONE, '', **nobody),
    }


def _nack(reason, text, **fields):
    return sample(wire.NACK, [bytes((reason,)), text.encode()],
                  {'reason': [reason, text]}, **fields)


def _nacks():
    return {f'nack-{name}': _nack(reason, f'weil {name}: \u00fc')
            for reason, name in wire.REASON_NAMES.items()}


def messages():
    """All of them by name, as this version writes them."""
    return {**_requests(), **_replies(), **_acknowledgements(), **_nacks()}


def records():
    """The registry's records: they are read by other versions as well."""
    ipc, tcp = 'ipc:///run/zmq/11.sock', 'tcp://node-1:9501'
    return {name: _record(record.Instance(**fields)) for name, fields in {
        'plain': {'id': INSTANCE, 'endpoints': (ipc, tcp)},
        'pool': {'id': INSTANCE, 'endpoints': (ipc,), 'pool': 'pool'},
        'receiver': {'id': INSTANCE, 'endpoints': (tcp,), 'receiver': True},
        'two-messages': {'id': INSTANCE, 'endpoints': (ipc,),
                         'two_messages': True}}.items()}


def _record(instance):
    fields = record.encode([instance])['instances'][0]
    return {
        'record': {**fields, 'id': fields['id'].hex()},
        'fields': {'id': instance.id.hex(),
                   'endpoints': list(instance.endpoints),
                   'pool': instance.pool, 'receiver': instance.receiver,
                   'two_messages': instance.two_messages}}


def write(folder, package):
    """Freeze what this version writes.

    :param folder: where the directories of the versions are
    :param package: version of the package, for those who read it later
    :raises: FileExistsError if this version was recorded before
    :returns: the new file
    """
    (folder / VERSION).mkdir()
    path = folder / VERSION / 'recordings.json'
    path.write_text(json.dumps(
        {'written_by': {'protocol': VERSION, 'package': package},
         'messages': messages(), 'records': records()},
        indent=1, ensure_ascii=False, sort_keys=True) + '\n', 'utf-8')
    return path


def main():
    from importlib import metadata
    try:
        print(write(HERE, metadata.version('zmq-threaded')))
    except FileExistsError:
        sys.exit(f'{VERSION} is recorded already, and what is recorded never '
                 'changes: raise wire.MINOR first')


if __name__ == '__main__':
    main()
