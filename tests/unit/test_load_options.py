# SPDX-License-Identifier: Apache-2.0
"""The command line of the load tool."""

import pytest
from load import errors
from load import options

RABBIT = 'rabbit://guest:secret@host:5672/'


def test_nothing_but_the_name():
    parsed = options.parse([])
    assert [entry.url for entry in parsed.entries] == ['zmq://']
    assert (parsed.mode.name, parsed.rounds, parsed.baseline) == ('call', 1, 'zmq://')


def test_several_urls_take_three_rounds_against_the_last():
    parsed = options.parse(['zmq://', RABBIT])
    assert parsed.rounds == 3
    assert parsed.baseline == 'rabbit://host:5672/'


def test_names_hide_credentials():
    assert options.parse([RABBIT]).entries[0].name == 'rabbit://host:5672/'
    assert 'secret' not in options.mask(RABBIT)


def test_all_passwords_of_a_cluster_are_masked():
    masked = options.mask('rabbit://a:one@h1:1,b:two@h2:2/vhost')
    assert masked == 'rabbit://a:***@h1:1,b:***@h2:2/vhost'


def test_given_names():
    parsed = options.parse(
        ['new=zmq://?rpc_zmq_ipc_dir=/x', 'zmq://', '--baseline', 'new']
    )
    assert [entry.name for entry in parsed.entries] == ['new', 'zmq://']
    assert parsed.entries[0].url == 'zmq://?rpc_zmq_ipc_dir=/x'
    assert parsed.baseline == 'new'


def test_the_same_url_twice_gets_two_names():
    names = [entry.name for entry in options.parse(['zmq://'] * 3).entries]
    assert names == ['zmq://', 'zmq:// (2)', 'zmq:// (3)']


def test_raw_is_one_more_contestant_but_not_the_baseline():
    parsed = options.parse(['--raw'])
    assert [entry.kind for entry in parsed.entries] == ['oslo', 'raw']
    assert (parsed.baseline, parsed.rounds) == ('zmq://', 3)


def test_raw_can_be_the_baseline():
    assert options.parse(['--raw', '--baseline', 'raw']).baseline == 'raw'


def test_size_in_bytes_or_real():
    assert options.parse([]).size == 'real'
    assert options.parse(['--size', '64']).size == 64


@pytest.mark.parametrize(
    'arguments',
    [
        ['zmq'],
        ['name=zmq'],
        ['--nope'],
        ['--threads', '0'],
        ['--threads', 'x'],
        ['--seconds', '0'],
        ['--seconds', 'inf'],
        ['--warmup', '-1'],
        ['--size', '1.5'],
        ['--mode', 'shout'],
        ['--raw', '--mode', 'cast'],
        ['--baseline', 'rabbit://'],
        ['--baseline', 'raw'],
        ['--json', '/no/such/folder/x'],
        ['--plot', '/no/such/folder/x'],
    ],
)
def test_usage_errors(arguments):
    with pytest.raises(errors.UsageError) as caught:
        options.parse(arguments)
    assert caught.value.exit_code == 2
    assert '\n' not in str(caught.value)
