# SPDX-License-Identifier: Apache-2.0
"""The directory of trusted keys."""

import os
import shutil
import time

import pytest

from zmq_threaded.security import keys
from zmq_threaded.security import trust


@pytest.fixture
def directory(tmp_path):
    found = tmp_path / 'trusted'
    found.mkdir()
    return found


def new(directory, name):
    """The public key of a new pair of which the directory has the public
    half.
    """
    public, secret = keys.create(str(directory), name)
    os.unlink(secret)
    return keys.read_public(public)


def test_keys_of_the_directory_are_trusted(directory):
    one = new(directory, 'one')
    assert trust.TrustedKeys(str(directory)).is_trusted(one)


def test_other_keys_are_not(directory, tmp_path):
    new(directory, 'one')
    other = new(tmp_path, 'other')
    assert not trust.TrustedKeys(str(directory)).is_trusted(other)


def test_a_key_that_comes_is_seen(directory):
    trusted = trust.TrustedKeys(str(directory))
    one = new(directory, 'one')
    assert trusted.refresh()
    assert trusted.is_trusted(one)


def test_a_key_that_goes_is_seen(directory):
    one = new(directory, 'one')
    trusted = trust.TrustedKeys(str(directory))
    os.unlink(directory / 'one.key')
    assert trusted.refresh()
    assert not trusted.is_trusted(one)


def test_nothing_new_is_no_change(directory):
    new(directory, 'one')
    trusted = trust.TrustedKeys(str(directory))
    assert not trusted.refresh()


def test_a_key_that_is_replaced_in_its_file_is_seen(directory, tmp_path):
    one = new(directory, 'one')
    trusted = trust.TrustedKeys(str(directory))
    other = new(tmp_path, 'other')
    shutil.copy(tmp_path / 'other.key', directory / 'one.key')
    assert trusted.refresh()
    assert trusted.is_trusted(other)
    assert not trusted.is_trusted(one)


def test_a_broken_file_stops_nobody_else(directory):
    one = new(directory, 'one')
    (directory / 'broken.key').write_text('no key')
    assert trust.TrustedKeys(str(directory)).is_trusted(one)


def complaints(caplog):
    return [each.getMessage() for each in caplog.records
            if 'one.key' in each.getMessage()]


@pytest.mark.parametrize('text', ['', 'curve\n', 'public-key = "ab'])
def test_a_file_that_is_being_written_keeps_its_key(directory, caplog, text):
    one = new(directory, 'one')
    trusted = trust.TrustedKeys(str(directory))
    whole = (directory / 'one.key').read_text()
    (directory / 'one.key').write_text(text)
    assert not trusted.refresh() and not trusted.refresh()
    assert trusted.is_trusted(one)
    told, = complaints(caplog)
    assert 'half written' in told and 'remove its file' in told
    (directory / 'one.key').write_text(whole)
    assert not trusted.refresh()
    assert trusted.is_trusted(one) and trusted.removals == 0


def test_a_file_that_stays_broken_takes_its_key_along(directory, monkeypatch,
                                                      caplog):
    one = new(directory, 'one')
    trusted = trust.TrustedKeys(str(directory))
    now = time.monotonic()
    monkeypatch.setattr(trust.time, 'monotonic', lambda: now)
    (directory / 'one.key').write_text('')
    trusted.refresh()
    # What is written meanwhile, and is no key, gives no more time.
    now += trust._GRACE - 1
    (directory / 'one.key').write_text('curve')
    assert not trusted.refresh()
    assert trusted.is_trusted(one)
    now += 2
    assert trusted.refresh()
    assert not trusted.is_trusted(one) and trusted.removals == 1
    assert not trusted.refresh()
    assert 'Nobody with that key is let in' in complaints(caplog)[-1]
    assert len(complaints(caplog)) == 2


def test_a_key_that_goes_while_its_file_is_broken_goes_at_once(directory):
    one = new(directory, 'one')
    trusted = trust.TrustedKeys(str(directory))
    (directory / 'one.key').write_text('')
    trusted.refresh()
    os.unlink(directory / 'one.key')
    assert trusted.refresh()
    assert not trusted.is_trusted(one)


def test_another_key_in_a_broken_file_counts_at_once(directory, tmp_path):
    one = new(directory, 'one')
    trusted = trust.TrustedKeys(str(directory))
    other = new(tmp_path, 'other')
    (directory / 'one.key').write_text('')
    trusted.refresh()
    shutil.copy(tmp_path / 'other.key', directory / 'one.key')
    assert trusted.refresh()
    assert trusted.is_trusted(other) and not trusted.is_trusted(one)


def test_a_broken_file_that_everybody_may_write_loses_its_key(directory):
    one = new(directory, 'one')
    trusted = trust.TrustedKeys(str(directory))
    (directory / 'one.key').write_text('')
    (directory / 'one.key').chmod(0o666)
    assert trusted.refresh()
    assert not trusted.is_trusted(one)


def test_secret_files_are_not_read(directory):
    public, secret = keys.create(str(directory), 'one')
    found = keys.read_public(public)
    os.unlink(public)
    assert not trust.TrustedKeys(str(directory)).is_trusted(found)


def test_a_directory_that_vanishes_changes_nothing(directory):
    one = new(directory, 'one')
    trusted = trust.TrustedKeys(str(directory))
    shutil.rmtree(directory)
    assert not trusted.refresh()
    assert trusted.is_trusted(one)


def test_without_a_directory_nothing_begins(tmp_path):
    with pytest.raises(keys.BadKey, match='nowhere'):
        trust.TrustedKeys(str(tmp_path / 'nowhere'))


def test_a_directory_into_which_everybody_may_write_is_refused(directory):
    directory.chmod(0o777)
    with pytest.raises(keys.BadKey, match='chmod o-w'):
        trust.TrustedKeys(str(directory))
