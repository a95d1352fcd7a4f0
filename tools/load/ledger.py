# SPDX-License-Identifier: Apache-2.0
"""Which operations were sent and which arrived: lost, duplicated, never sent.

An operation is known by the number of its client thread and its sequence
number in that thread, counted from 0 over the whole life of a contestant.
Sets of sequence numbers are bitmaps: one bit for each operation, in any order
of arrival, so that the counting stays small beside the memory a soak test
looks at.
"""

import base64
import collections
import dataclasses
import threading

_SEQUENCE_BITS = 40
_SEQUENCE_MASK = (1 << _SEQUENCE_BITS) - 1
_GROW_BYTES = 512


def make_ident(thread, sequence):
    """Return the number that stands for this operation on the wire."""
    return thread << _SEQUENCE_BITS | sequence


def split_ident(ident):
    """Return (thread, sequence) of an operation's number."""
    return ident >> _SEQUENCE_BITS, ident & _SEQUENCE_MASK


class Bitmap:
    """A set of sequence numbers, one bit each."""

    def __init__(self):
        self._bits = bytearray()

    def add(self, sequence):
        """Add a sequence number; False if it was there before."""
        index, bit = sequence >> 3, 1 << (sequence & 7)
        if index >= len(self._bits):
            self._bits.extend(bytes(index + _GROW_BYTES - len(self._bits)))
        if self._bits[index] & bit:
            return False
        self._bits[index] |= bit
        return True

    def to_int(self):
        """Return the set as one integer: bit n is sequence number n."""
        return int.from_bytes(self._bits, 'little')


class DeliveryLedger:
    """Counts first and further arrivals of operations in a server process."""

    def __init__(self):
        self._delivered = self._duplicated = 0
        self._seen = {}
        self._lock = threading.Lock()
        # Of the workers of a server, who never wait here: a lock that is
        # asked for this often would cost more than what is measured.
        self._arrived = collections.deque()

    def record(self, ident):
        """Note one delivery; never waits."""
        self._arrived.append(ident)
        if self._lock.acquire(blocking=False):
            try:
                self._enter()
            finally:
                self._lock.release()

    def counts(self):
        """Return (delivered, duplicated) so far."""
        with self._lock:
            self._enter()
            return self._delivered, self._duplicated

    def _enter(self):
        arrived = self._arrived
        while arrived:
            thread, sequence = split_ident(arrived.popleft())
            if thread not in self._seen:
                self._seen[thread] = Bitmap()
            if self._seen[thread].add(sequence):
                self._delivered += 1
            else:
                self._duplicated += 1

    def export(self):
        """Return a JSON-able copy of everything recorded, for reconcile()."""
        with self._lock:
            self._enter()
            seen = {
                thread: bitmap.to_int()
                for thread, bitmap in self._seen.items()
            }
            return {
                'duplicated': self._duplicated,
                'seen': {
                    str(thread): _pack(bits) for thread, bits in seen.items()
                },
            }


@dataclasses.dataclass(frozen=True)
class Sent:
    """What one client thread sent: how many operations, and which raised."""

    count: int
    failed: Bitmap


@dataclasses.dataclass(frozen=True)
class Tally:
    """What was sent, compared with what arrived, in messages."""

    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    never_sent: int = 0

    def __add__(self, other):
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other))
        return Tally(*(mine + theirs for mine, theirs in pairs))


def reconcile(sent, exports, every_server):
    """Compare what the client threads sent with what the servers recorded.

    sent: {thread: Sent}. exports: one DeliveryLedger.export() for each server.
    every_server: each operation is due once at every server, else at just one.
    An operation that raised in the client may or may not have arrived: either
    is right.
    """
    total = Tally(duplicated=sum(export['duplicated'] for export in exports))
    for thread, mine in sent.items():
        seen = [
            _unpack(export['seen'].get(str(thread), '')) for export in exports
        ]
        total += _reconcile_thread(mine, seen, every_server)
    strangers = [
        _unpack(packed)
        for export in exports
        for thread, packed in export['seen'].items()
        if int(thread) not in sent
    ]
    return total + Tally(
        never_sent=sum(bits.bit_count() for bits in strangers)
    )


def _reconcile_thread(sent, seen, every_server):
    everything = (1 << sent.count) - 1
    due = everything & ~sent.failed.to_int()
    anywhere = 0
    for bits in seen:
        anywhere |= bits
    arrivals = sum((bits & everything).bit_count() for bits in seen)
    never_sent = (anywhere & ~everything).bit_count()
    if every_server:
        lost = sum((due & ~bits).bit_count() for bits in seen)
        return Tally(arrivals, lost, 0, never_sent)
    distinct = (anywhere & everything).bit_count()
    return Tally(
        distinct,
        (due & ~anywhere).bit_count(),
        arrivals - distinct,
        never_sent,
    )


def _pack(bits):
    raw = bits.to_bytes((bits.bit_length() + 7) // 8, 'little')
    return base64.b64encode(raw).decode('ascii')


def _unpack(packed):
    return int.from_bytes(base64.b64decode(packed), 'little')
