# SPDX-License-Identifier: Apache-2.0
"""What a receiver reads of a multipart, without I/O and without its body."""

import dataclasses

from zmq_threaded import wire

_ANSWERS = wire.KIND_NAMES.keys() - wire.REQUESTS - {wire.QUERY}


@dataclasses.dataclass(slots=True)
class Request:
    """A multipart from a client.

    :ivar frames: all of it, as it goes on to a service
    :ivar instances: ids of the services that it is for
    """

    frames: list
    kind: int
    id: bytes
    instances: list

    def size(self):
        """Bytes of all frames."""
        return sum(map(len, self.frames))


def route(frames):
    """Read where a multipart wants to go.

    :param frames: the routing id of its client first; what follows the
        envelope may be any buffer
    :raises: wire.Malformed
    :returns: Request
    """
    _, payload = wire.split_envelope(frames)
    frame = memoryview(payload)
    kind, message_id, instances = wire.address(frame)
    # What nobody knows here goes on, for the service to refuse it by name.
    if kind in _ANSWERS and frame[4] == wire.MAJOR:
        raise wire.Malformed(f'kind {kind} is not for a receiver')
    # Each of them gets it once, however often it is named.
    return Request(frames, kind, message_id, list(dict.fromkeys(instances)))


def refusal(request, instance_id, reason, text='', closes_in=None):
    """The multipart that tells a client that a request was not taken.

    :param closes_in: see wire.encode_nack()
    """
    envelope, _ = wire.split_envelope(request.frames)
    return [*envelope, wire.encode_nack(instance_id, request.id, reason,
                                        text, closes_in)]


def is_answer(frames):
    """Whether a multipart of a service has a client to go to."""
    try:
        return len(wire.split_envelope(frames)[0]) >= 2
    except wire.Malformed:
        return False
