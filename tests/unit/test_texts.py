# SPDX-License-Identifier: Apache-2.0
"""Texts of strangers cannot look like lines of our log."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmq_threaded import texts
from zmq_threaded.registry import record

anything = st.text(st.characters(), max_size=60)   # with lone surrogates


@pytest.mark.parametrize('text', [
    '', 'plain', 'Zürich, 東京, 🙂', 'a \\ b', "it's", string.printable[:95]])
def test_an_honest_text_stays_as_it_is(text):
    assert texts.line(text) == texts.lines(text, 100) == text


@pytest.mark.parametrize('text, shown', [
    ('a\nb', r'a\nb'),
    ('a\r\x1b[2Jb', r'a\r\x1b[2Jb'), ('\0\x7f', r'\x00\x7f'),
    ('\x9b1m', r'\x9b1m'), ('\u2028\u202e', r'\u2028\u202e'),
    ('\ud800', r'\ud800')])
def test_what_could_leave_its_line_is_escaped(text, shown):
    assert texts.line(text) == shown


def test_lines_keep_newlines_and_tabs_and_nothing_else():
    assert texts.lines('a\n\tb\r\x1b\ud800', 99) == 'a\n\tb\\r\\x1b\\ud800'


def test_a_long_text_is_cut_and_says_so():
    assert texts.line('A' * 1000) == 'A' * 1000
    assert texts.line('A' * 1001) == 'A' * 1000 + ' ... (cut)'
    assert len(texts.line('\x1b' * 1_000_000)) < 1100
    assert texts.lines('ab\n' * 9, 5) == 'ab\nab ... (cut)'


def test_bytes_are_read_as_utf_8():
    assert texts.line('ü\n'.encode()) == 'ü\\n'
    assert texts.line(b'\xff') == '\ufffd'
    assert texts.line('ü'.encode() * 10_000, 3) == 'üüü ... (cut)'
    assert texts.line(memoryview(b'view')) == 'view'


@given(anything | st.binary(max_size=60), st.integers(0, 50))
def test_any_text_is_one_short_line_that_every_file_can_take(text, limit):
    shown = texts.line(text, limit)
    assert len(shown) <= limit + 10
    assert len(shown.splitlines()) <= 1
    shown.encode()
    assert '\x1b' not in shown


def test_names_in_a_record_cannot_look_like_a_line_of_the_log():
    evil = 'x\nCRITICAL \x1b[2J' + 'A' * 100_000
    text = str(record.Instance(b'i' * 16, (), host=evil, server=evil))
    assert len(text) < 1000 and '\n' not in text and '\x1b' not in text
    honest = record.Instance(b'i' * 16, (), host='n-1.example', server='ü')
    assert str(honest).startswith('ü on n-1.example (instance 6969')


@given(anything)
def test_lines_are_the_lines_of_the_text(text):
    shown = texts.lines(text, 1000)
    shown.encode()
    assert shown.count('\n') == text.count('\n')
    assert not set(shown) & {'\x1b', '\r', '\0'}
