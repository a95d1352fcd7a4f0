# SPDX-License-Identifier: Apache-2.0
"""The directory of trusted keys."""

import os
import shutil

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


def test_a_file_that_breaks_takes_its_key_along(directory):
    one = new(directory, 'one')
    trusted = trust.TrustedKeys(str(directory))
    (directory / 'one.key').write_text('')
    trusted.refresh()
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
