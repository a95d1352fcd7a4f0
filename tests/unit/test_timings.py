# SPDX-License-Identifier: Apache-2.0
"""The inequalities between the times and limits of the driver.

Each test says what would happen if its inequality did not hold.
"""

from zmq_threaded import timings
from zmq_threaded import wire

# A connection that is lost


def test_a_caller_sees_that_its_connection_was_lost_before_it_is_back():
    assert timings.CALL_SLICE < timings.RECONNECT
    assert timings.OUTBOX_TICK < timings.RECONNECT


def test_libzmq_has_connected_again_before_a_connection_is_given_up():
    assert timings.GRACE > 2 * timings.RECONNECT + timings.OUTBOX_TICK


def test_a_stall_that_the_outbox_does_not_notice_uses_up_no_grace():
    assert timings.OUTBOX_STALL + 2 * timings.RECONNECT <= timings.GRACE
    assert timings.OUTBOX_STALL > timings.OUTBOX_TICK


def test_another_address_is_found_before_a_connection_is_given_up():
    assert (timings.ADDRESSES_AFTER + timings.ADDRESSES_LIMIT
            + timings.OUTBOX_TICK < timings.GRACE)
    assert timings.ADDRESSES_AGAIN > timings.ADDRESSES_LIMIT


def test_reconnecting_waits_at_the_most_as_long_as_a_lost_peer_is_noticed():
    assert timings.RECONNECT < timings.RECONNECT_MAX <= timings.LOST_PEER


# A service that stands still


def test_nobody_gives_messages_away_before_the_service_expects_it():
    # By its heartbeats, to the service itself.
    assert timings.GIVEN_AWAY_AFTER < timings.HEARTBEAT_ANSWER
    # By the receiver of its node.
    assert timings.GIVEN_AWAY_AFTER < timings.ANSWER + timings.HANDSHAKE_PROBE


def test_a_service_that_runs_is_never_taken_for_one_that_stood_still():
    assert 2 * timings.STALL_TICK < timings.GIVEN_AWAY_AFTER
    assert timings.POLLER_WAIT < timings.GIVEN_AWAY_AFTER


def test_a_receiver_waits_for_a_handshake_as_long_as_libzmq_does():
    assert timings.HANDSHAKE_PROBE >= timings.HANDSHAKE


def test_the_poller_ticks_each_time_that_nothing_woke_it():
    assert timings.POLLER_TICK <= timings.POLLER_WAIT


def test_the_clock_of_the_ids_loses_no_time_while_the_poller_reads():
    assert timings.LONGEST_STEP > timings.POLLER_WAIT


def test_ids_are_remembered_until_a_lost_connection_is_noticed():
    assert timings.ON_ITS_WAY > timings.LOST_PEER + timings.GRACE


# Questions


def test_the_questions_of_a_sender_are_answered():
    # An ASK_AFTER apart, in one part of the window each; and the watched
    # calls of the same sender.
    per_question = -(-timings.WINDOW // wire.MOST_IDS_OF_A_QUERY)
    assert 2 * per_question / timings.ASK_AFTER < timings.QUERIES
    assert timings.ASK_AFTER <= timings.ASK_RECEIVER_EVERY
    assert timings.ASK_RECEIVER_EVERY < timings.ASK_AT_MOST_EVERY


def test_a_lost_call_behind_a_receiver_ends_in_about_a_second():
    assert timings.ASK_AFTER + timings.OUTBOX_TICK < 1.5


# A service that closes


def test_who_does_not_look_has_heard_of_the_service_before_it_closes():
    assert timings.FRESH < timings.CLOSING_QUIET


def test_a_receiver_that_is_quiet_has_had_its_last_answers_read():
    assert timings.LAST_READ <= timings.RECEIVER_QUIET
    assert timings.RECEIVER_QUIET < timings.RECEIVER_OVERTIME


def test_the_mark_of_a_closed_service_stays_until_all_have_seen_the_end():
    assert timings.NOTICED_WITHIN > timings.OUTBOX_TICK + timings.CLOSING_QUIET
    assert timings.NOTICED_WITHIN > timings.CALL_SLICE + timings.CLOSING_QUIET


def test_the_last_answers_are_written_before_nobody_waits_for_the_thread():
    assert timings.LAST_WRITE < timings.LAST_REPLIES


# Limits


def test_the_pipe_of_a_client_to_a_service_is_never_full():
    questions = timings.QUERIES
    assert 2 * (timings.WINDOW + questions) < timings.SERVICE_PIPE


def test_one_client_alone_does_not_fill_what_a_receiver_has_for_a_service():
    assert timings.RECEIVER_PIPE >= 2 * timings.WINDOW
    assert timings.EARLY >= timings.WINDOW


def test_the_answers_to_a_whole_window_find_room_at_the_client():
    assert timings.CLIENT_PIPE > 2 * timings.WINDOW


def test_libzmq_gets_milliseconds():
    assert timings.milliseconds(0.5) == 500
    assert timings.milliseconds(timings.LOST_PEER) == 6000
    assert isinstance(timings.milliseconds(2.0), int)
