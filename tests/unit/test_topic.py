# SPDX-License-Identifier: Apache-2.0
"""What the names of a Target become in the registry."""

from hypothesis import assume
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from zmq_threaded import texts
from zmq_threaded import topic

# All of unicode, lone surrogates too, and often what could confuse.
characters = (st.characters(categories=None)
              | st.sampled_from(':/.%3Aa+ \0\udcff'))
names = st.text(alphabet=characters, max_size=8)
ARGUMENTS = {topic.rpc: 3, topic.notifications: 2, topic.pool: 3}
KINDS = list(ARGUMENTS)
addresses = st.tuples(names, names, st.none() | names.filter(bool))


@given(addresses, addresses)
@example(('a', 'b', None), ('a', '', 'b'))
@example(('a:b', 'c', None), ('a', 'b', 'c'))
@example(('a', 'b', ':'), ('a', 'b', '%3A'))
@example(('a', 'b', '%'), ('a', 'b', '%25'))
@example(('a', 'b', '\U00010000'), ('a', 'b', '\ud800\udc00'))
@example(('a', 'b', 'x'), ('a', 'b', 'X'))
@example(('a', 'b', '\xe4'), ('a', 'b', 'a\u0308'))
def test_keys_of_distinct_addresses_never_collide(one, other):
    assume(one != other)
    assert topic.rpc(*one).key != topic.rpc(*other).key


@given(addresses)
def test_keys_are_ascii_and_always_the_same(address):
    made = topic.rpc(*address)
    assert made.key.isascii() and made.key.isprintable()
    topic.rpc.cache_clear()
    assert topic.rpc(*address) == made


@given(addresses)
def test_parts_can_be_read_back_and_printed(address):
    made = topic.rpc(*address)
    assert (made.exchange, made.name, made.server) == address
    for part in made.name, made.exchange:
        assert texts.line(part, 255) in str(made)


@given(names, names)
def test_an_empty_server_is_none(exchange, name):
    made = topic.rpc(exchange, name, '')
    assert made == topic.rpc(exchange, name) == topic.rpc(exchange, name,
                                                          None)
    assert made.server is None


def test_a_long_name_is_not_cut():
    one, other = 'x' * 10_000 + 'a', 'x' * 10_000 + 'b'
    assert topic.rpc('e', one).key != topic.rpc('e', other).key


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), names, names, names)
def test_kinds_never_collide(one, other, exchange, name, last):
    assume(one is not other)
    assert key(one, exchange, name, last) != key(other, exchange, name, last)


def key(kind, exchange, name, last):
    return kind(*(exchange, name, last)[:ARGUMENTS[kind]]).key


@given(st.sampled_from([topic.notifications, topic.pool]),
       st.tuples(names, names, names), st.tuples(names, names, names))
def test_notification_keys_never_collide(kind, one, other):
    count = ARGUMENTS[kind]
    assume(one[:count] != other[:count])
    assert key(kind, *one) != key(kind, *other)
    assert key(kind, *one).isascii()


def test_a_name_cannot_look_like_a_line_of_the_log():
    strange = topic.rpc('e\x1b[2J', 'n\nCRITICAL root', 's' * 100_000)
    assert '\n' not in str(strange) and '\x1b' not in str(strange)
    assert len(str(strange)) < 1000
