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


def route(frames):
    """Read where a multipart wants to go.

    :param frames: the routing id of its client first; what follows the
        envelope may be any buffer
    :raises: wire.Malformed
    :returns: Request
    """
    end = _envelope_end(frames)
    frame = memoryview(frames[end])
    kind, message_id, instances = wire.address(frame)
    # What nobody knows here goes on, for the service to refuse it by name.
    if kind in _ANSWERS and frame[4] == wire.MAJOR:
        raise wire.Malformed(f'kind {kind} is not for a receiver')
    return Request(frames, kind, message_id, instances)


def refusal(request, instance_id, reason):
    """The multipart that tells a client that a request was not taken."""
    return [*request.frames[:_envelope_end(request.frames)],
            wire.encode_nack(instance_id, request.id, reason)]


def is_answer(frames):
    """Whether a multipart of a service has a client to go to."""
    try:
        return _envelope_end(frames) >= 2
    except wire.Malformed:
        return False


def _envelope_end(frames):
    try:
        end = frames.index(b'') + 1
    except ValueError:
        end = len(frames)
    if end == len(frames):
        raise wire.Malformed('no envelope, or no message')
    return end
