# SPDX-License-Identifier: Apache-2.0
"""The times and limits that depend on each other, in one table.

Whoever changes one of them looks at the others: tests/unit/test_timings.py
holds the inequalities between them. What depends on nothing elsewhere stands
in the module that uses it. Times are in seconds, limits in messages.
"""

# Heartbeats
#
# A client pings its peer every HEARTBEAT by the I/O thread of libzmq, however
# busy Python is. A peer that stands still, or a cut wire, is noticed after
# LOST_PEER at the latest. The peer notices when no ping came for as long.
HEARTBEAT = 2.0
HEARTBEAT_ANSWER = 4.0
LOST_PEER = HEARTBEAT + HEARTBEAT_ANSWER
# The I/O threads of two processes that run shake hands in milliseconds.
HANDSHAKE = 2.0
CONNECT = 3.0

# A connection that is lost
#
# libzmq tries to connect again after RECONNECT to twice RECONNECT, and after
# failures up to RECONNECT_MAX.
RECONNECT = 0.5
RECONNECT_MAX = 5.0
# A caller looks at its connection every CALL_SLICE. A peer that died and came
# back in between would go unnoticed, so connecting again must take longer.
CALL_SLICE = 0.2
# The outbox does what is due every OUTBOX_TICK while it holds messages.
OUTBOX_TICK = 0.2
OUTBOX_IDLE_TICK = 5.0
# A turn of the outbox that took so much longer than it should: this process
# stood still, and what it missed meanwhile is no sign of a lost peer.
OUTBOX_STALL = 1.0
# A lost connection that is not back by then is not waited for. One second
# would be the toss of a coin after a stall of this process, for libzmq takes
# up to twice RECONNECT to try again.
GRACE = 2.0
# Another address of the same name is tried when a connection is lost for
# ADDRESSES_AFTER, for ADDRESSES_LIMIT, and again after ADDRESSES_AGAIN.
ADDRESSES_AFTER = 0.2
ADDRESSES_LIMIT = 1.0
ADDRESSES_AGAIN = 2.0

# A service that stands still
#
# The receiver asks a service that says nothing, and after ANSWER without an
# answer it tries to shake hands with it for HANDSHAKE_PROBE. Then it tells the
# senders that the service cannot be reached, and they choose another one.
ANSWER = 1.5
HANDSHAKE_PROBE = 2.0
# A service that stood still for longer than this has to expect that what was
# sent to it was given to others. No sender gives messages away earlier.
GIVEN_AWAY_AFTER = 3.0
# The reply thread of a service sees every STALL_TICK whether it stood still.
STALL_TICK = 1.0
# How long at least what was sent to it during a stall may take to come out of
# the kernel.
WAKING = 1.0
# The poller thread reads at least every POLLER_WAIT, whatever wakes it or
# not, and then does what is due.
POLLER_WAIT = 1.0
POLLER_TICK = 0.9
# The clock of the ids that a service remembers makes no longer steps than
# this: it stands while nothing is read.
LONGEST_STEP = 2.0
# Copies of a message whose sender has settled it may be on their way for so
# long, over a connection that was lost since.
ON_ITS_WAY = 10.0

# Messages without an answer
#
# Silence after which a service is asked about a message, or about a call. The
# questions become rarer. A receiver is asked more often, for nothing else
# tells that a service behind it is gone.
ASK_AFTER = 1.0
ASK_RECEIVER_EVERY = 1.0
ASK_AT_MOST_EVERY = 10.0
# The questions of one sender that a service answers in a second; it ignores
# more of them.
QUERIES = 20

# A service that closes
#
# It renames the file of its socket CLOSING_QUIET before it closes. Who has
# heard of the service within FRESH needs no look at that file.
CLOSING_QUIET = 0.05
FRESH = 0.02
# Clients take note of the end of a connection within this.
NOTICED_WITHIN = 1.0
# At its end the reply thread writes for LAST_WRITE, and is waited for until
# LAST_REPLIES.
LAST_WRITE = 1.0
LAST_REPLIES = 2.0
# Clients read what was written to them within LAST_READ, or never, for their
# connection ends.
LAST_READ = 0.2

# A receiver that closes
#
# It refuses requests for zmq_linger, and says so in each refusal. It closes
# when nothing has moved for RECEIVER_QUIET, but no later than
# RECEIVER_OVERTIME after that time. What comes in between its last look and
# its close is lost; who has heard its word sends nothing. That a connection
# leads to the same receiver is certain for RECONNECT after that word.
RECEIVER_QUIET = 0.2
RECEIVER_OVERTIME = 0.5

# Limits
#
# From a pipe that is full libzmq reads nothing more, heartbeats included, and
# both ends take the other for dead. So the pipe of a client to a service has
# room for its WINDOW, the messages in flight to one service, and its
# questions, more than twice: a reader counts as having read only after half a
# pipe. (Only calls that time out while their service hangs could fill it.)
WINDOW = 1000
SERVICE_PIPE = 3000
# The pipe of a receiver to a service, with the messages of many clients, may
# be full, so that connection has no heartbeats.
RECEIVER_PIPE = 2000
# Requests that a receiver keeps for a service until they have shaken hands.
EARLY = 1000
# Answers to one client; never full, for a client sends heartbeats.
CLIENT_PIPE = 100_000


def milliseconds(seconds: float) -> int:
    """As the options of libzmq want it."""
    return round(1000 * seconds)
