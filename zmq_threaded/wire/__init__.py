# SPDX-License-Identifier: Apache-2.0
"""The frames: encode and decode for every kind of message, without I/O.

A multipart is an envelope and a message. The envelope is everything through
the first empty frame (routing ids, and the request id of REQ_CORRELATE); it
is kept as it came and sent back as it was. A message is one frame,
big-endian; frames after it are ignored::

     0   4s  magic          b'ZMQT'
     4   B   major version  another one is refused (NACK VERSION)
     5   B   minor version  only reported
     6   B   kind
     7   B   parts          how many there are
     8   H   flags          unknown ones are ignored
    10   d   expiry         seconds left to live when it was sent, inf: for
                            ever; with DEADLINE the moment itself, on the
                            clock that the processes of a host share
    18  16s  instance       which service it is meant for, or is from
    34  16s  message id
    50   d   client timeout seconds between heartbeats, 0: none wanted
    58   I.. the length of each part, then the parts

The first 50 bytes keep their place for ever, so that any version can refuse
any other by name. All is one frame because pyzmq gives up the GIL for every
frame: among 32 calling threads a frame less saves more than a copy costs.

    kind               parts by kind; unknown ones that follow are ignored
    CALL               context, message
    CAST NOTIFY        context, message, settled id
    FANOUT             context, message, ids of the instances or nothing,
                       settled id; to a receiver it may go with the instance
                       NO_ID and the ids of several, 4,096 at most
    REPLY              result, or with FAILURE the remote exception; empty in
                       the second of two messages, which only has ENDING
    HEARTBEAT          -
    ACK                message ids, 16 bytes each
    NACK               reason (1 byte), text (UTF-8); with CLOSING it is from
                       a receiver that takes no more requests, and is closed
                       after the expiry at the latest
    QUERY              message ids, 1,000 at most; a receiver that has no
                       such instance, or one that is paused, answers NACK
                       GONE or UNREACHABLE with the message id NO_ID
    STATUS             message ids, one state byte for each

A settled id says that the sender will not send again what it gave a smaller id
(the ids of a process grow): nobody needs to remember it to know a duplicate.
"""

from zmq_threaded.wire.bodies import acknowledged_ids
from zmq_threaded.wire.bodies import address
from zmq_threaded.wire.bodies import closes_in
from zmq_threaded.wire.bodies import context_and_message
from zmq_threaded.wire.bodies import encode_ack
from zmq_threaded.wire.bodies import encode_ending
from zmq_threaded.wire.bodies import encode_heartbeat
from zmq_threaded.wire.bodies import encode_nack
from zmq_threaded.wire.bodies import encode_query
from zmq_threaded.wire.bodies import encode_reply
from zmq_threaded.wire.bodies import encode_request
from zmq_threaded.wire.bodies import encode_status
from zmq_threaded.wire.bodies import has_result
from zmq_threaded.wire.bodies import is_for
from zmq_threaded.wire.bodies import join_ids
from zmq_threaded.wire.bodies import nack_reason
from zmq_threaded.wire.bodies import queried_ids
from zmq_threaded.wire.bodies import reply_result
from zmq_threaded.wire.bodies import settled
from zmq_threaded.wire.bodies import split_ids
from zmq_threaded.wire.bodies import status_states
from zmq_threaded.wire.frames import ACK
from zmq_threaded.wire.frames import ACKNOWLEDGED
from zmq_threaded.wire.frames import BUSY
from zmq_threaded.wire.frames import CALL
from zmq_threaded.wire.frames import CAST
from zmq_threaded.wire.frames import CLOSING
from zmq_threaded.wire.frames import CONFIRM
from zmq_threaded.wire.frames import DEADLINE
from zmq_threaded.wire.frames import decode
from zmq_threaded.wire.frames import encode
from zmq_threaded.wire.frames import ENDING
from zmq_threaded.wire.frames import EXPIRED
from zmq_threaded.wire.frames import FAILURE
from zmq_threaded.wire.frames import FANOUT
from zmq_threaded.wire.frames import GONE
from zmq_threaded.wire.frames import HEARTBEAT
from zmq_threaded.wire.frames import id_maker
from zmq_threaded.wire.frames import ID_SIZE
from zmq_threaded.wire.frames import KIND_NAMES
from zmq_threaded.wire.frames import KNOWN
from zmq_threaded.wire.frames import LONGEST_TIMEOUT
from zmq_threaded.wire.frames import MAJOR
from zmq_threaded.wire.frames import maker
from zmq_threaded.wire.frames import MALFORMED
from zmq_threaded.wire.frames import Malformed
from zmq_threaded.wire.frames import Message
from zmq_threaded.wire.frames import MINOR
from zmq_threaded.wire.frames import MOST_IDS_OF_A_QUERY
from zmq_threaded.wire.frames import MSGPACK
from zmq_threaded.wire.frames import NACK
from zmq_threaded.wire.frames import NEVER
from zmq_threaded.wire.frames import NO_ID
from zmq_threaded.wire.frames import NO_RESULT
from zmq_threaded.wire.frames import NOTIFY
from zmq_threaded.wire.frames import OBSERVE
from zmq_threaded.wire.frames import QUERY
from zmq_threaded.wire.frames import REASON_NAMES
from zmq_threaded.wire.frames import REPLY
from zmq_threaded.wire.frames import REQUESTS
from zmq_threaded.wire.frames import REQUEUED
from zmq_threaded.wire.frames import split_envelope
from zmq_threaded.wire.frames import STATUS
from zmq_threaded.wire.frames import STOPPING
from zmq_threaded.wire.frames import UNKNOWN
from zmq_threaded.wire.frames import UNREACHABLE
from zmq_threaded.wire.frames import VERSION
from zmq_threaded.wire.frames import WrongVersion

__all__ = [
    'ACK', 'ACKNOWLEDGED', 'acknowledged_ids', 'address', 'BUSY', 'CALL',
    'CAST', 'closes_in', 'CLOSING', 'CONFIRM', 'context_and_message',
    'DEADLINE', 'decode', 'encode',
    'encode_ack', 'encode_ending', 'encode_heartbeat', 'encode_nack',
    'encode_query', 'encode_reply', 'encode_request', 'encode_status',
    'ENDING', 'EXPIRED', 'FAILURE', 'FANOUT', 'GONE', 'has_result',
    'HEARTBEAT', 'id_maker', 'ID_SIZE', 'is_for', 'join_ids', 'KIND_NAMES',
    'KNOWN', 'LONGEST_TIMEOUT', 'MAJOR', 'maker', 'MALFORMED', 'Malformed',
    'Message', 'MINOR', 'MOST_IDS_OF_A_QUERY', 'MSGPACK', 'NACK',
    'nack_reason', 'NEVER', 'NO_ID', 'NO_RESULT', 'NOTIFY', 'OBSERVE',
    'queried_ids', 'QUERY', 'REASON_NAMES', 'REPLY', 'reply_result',
    'REQUESTS', 'REQUEUED', 'settled', 'split_envelope', 'split_ids', 'STATUS',
    'status_states', 'STOPPING', 'UNKNOWN', 'UNREACHABLE', 'VERSION',
    'WrongVersion',
]
