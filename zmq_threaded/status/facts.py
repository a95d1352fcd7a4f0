# SPDX-License-Identifier: Apache-2.0
"""The facts: what each process publishes of itself, as one document (pure).

A document is a JSON object. It goes into a file of the node's directory
(`fact_files`) and, with a shared registry and compressed by zlib, into the
registry (`registry.shared_facts`). Readers ignore fields that they do not
know. Texts are for people and carry no message, context, password or key. All
durations are seconds; a count is since the start of the process::

    format      1
    kind        'runtime': a driver in a process; 'receiver': that of a node
    id          of this driver in this process, 16 hexadecimal digits
    seq         how many documents of this id there were before
    every       seconds between two documents
    at          when it was made: the clock of the host (seconds since 1970)
    stamp       the same by the clock of registry.stamps, hexadecimal; ''
    server_at   the same by the clock of the registry's server; null if the
                server tells no time
    process     name, pid, pid_space (inode of its PID namespace), began (in
                clock ticks after the boot, as in /proc), user, up (seconds
                since then), version, protocol, host (rpc_zmq_host), machine
                (host name), topology, encryption, bridge (over what a
                process with a bridge sends: 'other' or 'zmq'; ''), ipc_dir,
                threads, descriptors_left
    registry    place, answers (boolean), failing (for how many seconds), why
    counts      the counters and gauges of docs/counters.md
    minute      by how much the counters grew in the last 60 seconds or so
    services    a list, for each that listens:
        id          of the instance, hexadecimal
        kind        'rpc' or 'notify'
        topics      list of [exchange, topic]
        server pool endpoints
        listed      boolean: it means to be registered
        other_half  1 if it listens on the other driver of a bridge too, 0 if
                    it does not at the moment; null without a bridge
        up          seconds since it was made
        workers     threads of its executor; null if unknown
        busy        of these; null if unknown
        longest     for how long the longest-running worker is at it
        backlog limit   messages held, and how many it may hold
        oldest      how long the oldest of these waits
        full        boolean: flow control has stopped the reading
        taken       messages that it took
        waiting running     histograms: until a worker began, and from there
        counts minute       refusals and losses of this service
    sent        a list, for each exchange and topic: exchange, topic, calls and
                casts (histograms of the round trips), failed (calls)
    pending     a list, for each destination with messages that are not
                acknowledged, the oldest first: exchange, topic, server, count,
                oldest, where (of the oldest: waiting, queued, in_flight...),
                to (for whom the oldest waits; ''), kept (boolean: they lie in
                a journal, and wait for a listener by design)
    unacknowledged   how many messages these are
    outbox_silent    for how long the outbox did not answer the last question
    stuck_after      rpc_zmq_stuck_workers_after; older releases do not say it,
                and count as if they had the default
    receiver    that of the node: expected (the services are behind one),
                there, endpoint
    findings    a list, see status.findings: kind, subject, text, remedy, since
    left_out    what was left out to keep the document small: names, and how
                many items of each

A histogram is {counts, sum}: see status.histogram, whose BOUNDS are the upper
bounds of the buckets. Zeros at the end of the counts are left out.

Who reads the files of a node (`fact_files.read`) adds to a document::

    silent      seconds since the process gave a sign of life: wrote its facts,
                or tried to; as registry.stamps.age has it
    process     lives: whether it does by its lock; null if that says nothing
    findings    that its facts cannot be written
"""

import json
import zlib
from typing import Any

FORMAT = 1
# Bytes of a document, as it is written and as it is read.
LONGEST_WRITTEN, LONGEST_READ = 1 << 17, 1 << 18
# Items of each list, at the most.
MOST_SERVICES, MOST_SENT, MOST_PENDING, MOST_FINDINGS = 200, 100, 50, 50
# What is left out first, when the document is too long.
_TIMES = 'waiting', 'running'
_LISTS = {'services': MOST_SERVICES, 'sent': MOST_SENT,
          'pending': MOST_PENDING, 'findings': MOST_FINDINGS}


class Malformed(Exception):
    """A document is of no use; the text says why."""


def encode(document: dict[str, Any]) -> bytes:
    """The document as it is published, cut to a bounded size.

    :param document: not changed
    """
    left_out: dict[str, int] = {}
    document = {**document, 'left_out': left_out}
    for name, most in _LISTS.items():
        _cut(document, name, most, left_out)
    packed = _packed(document)
    if len(packed) > LONGEST_WRITTEN and document.get('services'):
        left_out['histograms'] = len(document['services'])
        document['services'] = [
            {name: value for name, value in each.items()
             if name not in _TIMES} for each in document['services']]
        packed = _packed(document)
    while len(packed) > LONGEST_WRITTEN:
        name = max(_LISTS, key=lambda name: len(_packed(
            document.get(name, []))))
        if not document.get(name):
            raise Malformed('it is too long, whatever is left out')
        _cut(document, name, len(document[name]) // 2, left_out)
        packed = _packed(document)
    return packed


def _packed(document: Any) -> bytes:
    return json.dumps(document, separators=(',', ':'),
                      ensure_ascii=True).encode()


def _cut(document: dict[str, Any], name: str, most: int,
         left_out: dict[str, int]) -> None:
    items = document.get(name, [])
    if len(items) > most:
        left_out[name] = left_out.get(name, 0) + len(items) - most
        document[name] = items[:most]


def compress(packed: bytes) -> bytes:
    """A document for the registry, a third of the size."""
    return zlib.compress(packed)


def decode(packed: bytes) -> dict[str, Any]:
    """A document that anybody may have written: its parts have the types of
    the table above, or are as if they were empty.

    :raises: Malformed
    """
    if len(packed) > LONGEST_READ:
        raise Malformed(f'it has {len(packed)} bytes')
    try:
        document = json.loads(_uncompressed(packed))
    except (ValueError, RecursionError, zlib.error) as error:
        raise Malformed(f'it is no JSON ({type(error).__name__})') from None
    if not isinstance(document, dict) or document.get('format') != FORMAT:
        raise Malformed('it is no document of this format')
    return _sound(document, _SHAPE)


def _uncompressed(packed: bytes) -> bytes:
    if packed.startswith(b'{'):
        return packed
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(packed, LONGEST_READ)
    if not unpacking.eof:
        raise Malformed('it is cut off, or too long')
    return content


# What a reader relies on: for a field its default, of the right type; for a
# list the shape of each item; and for a tuple that of each of its places.
_HISTOGRAM: dict[str, Any] = {'counts': [0], 'sum': 0.0}
_NUMBERS: dict[str, Any] = {'*': 0}
_SERVICE: dict[str, Any] = {
    'id': '', 'kind': '', 'topics': [('', '')], 'server': '', 'pool': '',
    'endpoints': [''], 'listed': False, 'other_half': None, 'up': 0.0,
    'workers': None, 'busy': None, 'longest': 0.0, 'backlog': 0, 'limit': 0,
    'oldest': 0.0, 'full': False, 'taken': 0, 'waiting': _HISTOGRAM,
    'running': _HISTOGRAM, 'counts': _NUMBERS, 'minute': _NUMBERS}
_SENT: dict[str, Any] = {
    'exchange': '', 'topic': '', 'calls': _HISTOGRAM, 'casts': _HISTOGRAM,
    'failed': 0}
_PENDING: dict[str, Any] = {
    'exchange': '', 'topic': '', 'server': '', 'count': 0, 'oldest': 0.0,
    'where': '', 'to': '', 'kept': False}
_FINDING: dict[str, Any] = {
    'kind': '', 'subject': '', 'text': '', 'remedy': '', 'since': 0.0}
_PROCESS: dict[str, Any] = {
    'name': '', 'pid': 0, 'pid_space': 0, 'began': 0, 'user': '', 'up': 0.0,
    'version': '', 'protocol': '', 'host': '', 'machine': '', 'topology': '',
    'encryption': '', 'bridge': '', 'ipc_dir': '', 'threads': 0,
    'descriptors_left': 0}
_RECEIVER: dict[str, Any] = {
    'expected': False, 'there': False, 'endpoint': ''}
_SHAPE: dict[str, Any] = {
    'format': FORMAT, 'kind': '', 'id': '', 'seq': 0, 'every': 10.0,
    'at': 0.0, 'stamp': '', 'server_at': None, 'process': _PROCESS,
    'registry': {'place': '', 'answers': True, 'failing': 0.0, 'why': ''},
    'counts': _NUMBERS, 'minute': _NUMBERS, 'services': [_SERVICE],
    'sent': [_SENT], 'pending': [_PENDING], 'unacknowledged': 0,
    'outbox_silent': 0.0, 'stuck_after': 60.0, 'receiver': _RECEIVER,
    'findings': [_FINDING], 'left_out': _NUMBERS}


def _sound(value: Any, shape: Any) -> Any:
    """A value, or what stands for it when it has another shape."""
    if shape is None:
        return value if _is_number(value) else None
    if isinstance(shape, dict):
        return _sound_object(value if isinstance(value, dict) else {}, shape)
    if isinstance(shape, list):
        return [_sound(each, shape[0]) for each in value
                ] if isinstance(value, list) else []
    if isinstance(shape, tuple):
        known = dict(enumerate(value if isinstance(value, list) else ()))
        return [_sound(known.get(place), each)
                for place, each in enumerate(shape)]
    if isinstance(shape, bool):
        return value if isinstance(value, bool) else shape
    if isinstance(shape, str):
        return value if isinstance(value, str) else shape
    return value if _is_number(value) else shape


def _sound_object(value: dict[str, Any],
                  shape: dict[str, Any]) -> dict[str, Any]:
    if '*' in shape:
        return {name: each for name, each in value.items()
                if _is_number(each)}
    return {name: _sound(value.get(name), each)
            for name, each in shape.items()}


def _is_number(value: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and abs(value) < 1e15)
