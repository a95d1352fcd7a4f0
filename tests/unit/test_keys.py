# SPDX-License-Identifier: Apache-2.0
"""Keys of CURVE in files."""

import errno
import os
import stat

import pytest
import zmq
import zmq.auth.certs

from zmq_threaded.security import keys
from zmq_threaded.security import trust


@pytest.fixture
def pair(tmp_path):
    return keys.create(str(tmp_path), 'node-1')


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_new_pair_can_be_read(pair):
    public, secret = pair
    found = keys.read_pair(secret)
    assert keys.read_public(public) == found.public
    assert zmq.curve_public(found.secret) == found.public


def test_nobody_else_may_read_the_secret_file(pair):
    public, secret = pair
    assert (mode(public), mode(secret)) == (0o644, 0o600)


def test_a_pair_never_overwrites_another(pair, tmp_path):
    with pytest.raises(keys.BadKey, match='there already'):
        keys.create(str(tmp_path), 'node-1')


@pytest.mark.parametrize('wrong', [0o640, 0o604, 0o620, 0o660, 0o644, 0o601])
def test_a_secret_file_that_others_may_read_is_refused(pair, wrong):
    os.chmod(pair[1], wrong)
    with pytest.raises(keys.BadKey, match='chmod 600'):
        keys.read_pair(pair[1])


@pytest.mark.skipif(os.getuid() != 0, reason='chown needs root')
def test_a_group_that_was_given_on_purpose_may_read(pair):
    os.chown(pair[1], 0, 12345)
    os.chmod(pair[1], 0o640)
    assert keys.read_pair(pair[1])


def test_the_secret_is_not_shown(pair):
    found = keys.read_pair(pair[1])
    assert found.secret.decode() not in repr(found)


@pytest.mark.parametrize('text', [
    '', 'curve\n', 'curve\n public-key = "short"\n',
    'curve\n public-key = "' + '"' * 40 + '"\n',
    'curve\n public-key = "' + '~' * 40 + '"\n',
    'curve\n public-key = "' + '#' * 40 + '"\n',
    'curve\n public-key\n', 'public-key', 'secret-key\n'])
def test_a_file_without_a_key_is_named(tmp_path, text):
    path = tmp_path / 'bad.key'
    path.write_text(text)
    with pytest.raises(keys.BadKey, match='bad.key'):
        keys.read_public(str(path))


@pytest.mark.parametrize('text', [
    'public-key\n', 'secret-key\n', 'secret-key = "ä"\n'])
def test_a_secret_file_without_a_key_is_named(pair, text):
    with open(pair[1], 'a', encoding='utf-8') as file:
        file.seek(0)
        file.truncate()
        file.write(text)
    with pytest.raises(keys.BadKey, match='node-1.key_secret'):
        keys.read_pair(pair[1])


def test_a_malformed_file_keeps_no_key_trusted(tmp_path):
    public, _ = keys.create(str(tmp_path), 'node-1')
    key = keys.read_public(public)
    trusted = trust.TrustedKeys(str(tmp_path))
    assert trusted.is_trusted(key)
    (tmp_path / 'bad.key').write_text('public-key\n')
    os.unlink(public)
    assert trusted.refresh()
    assert not trusted.is_trusted(key)


def test_a_key_that_every_user_may_change_is_not_trusted(tmp_path, caplog):
    public, _ = keys.create(str(tmp_path), 'node-1')
    key = keys.read_public(public)
    trusted = trust.TrustedKeys(str(tmp_path))
    os.chmod(public, 0o646)
    assert trusted.refresh()
    assert not trusted.is_trusted(key)
    assert 'chmod o-w' in caplog.text and 'node-1.key' in caplog.text
    os.chmod(public, 0o644)
    assert trusted.refresh()
    assert trusted.is_trusted(key)


def test_a_pipe_among_the_trusted_keys_stops_nobody(tmp_path):
    os.mkfifo(tmp_path / 'pipe.key')
    assert not trust.TrustedKeys(str(tmp_path)).refresh()


@pytest.mark.parametrize('mode', [0o600, 0o644, 0o666])
def test_a_public_file_is_no_pair(pair, mode):
    os.chmod(pair[0], mode)
    with pytest.raises(keys.BadKey, match='no secret key'):
        keys.read_pair(pair[0])


def test_a_directory_is_no_pair(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(keys.BadKey, match='it is a directory'):
        keys.read_pair(str(tmp_path))


@pytest.mark.parametrize('read', [keys.read_pair, keys.read_public,
                                  trust.read_public])
def test_a_pipe_is_no_key(tmp_path, read):
    os.mkfifo(tmp_path / 'pipe.key')
    with pytest.raises(keys.BadKey, match='no regular file'):
        read(str(tmp_path / 'pipe.key'))


@pytest.mark.parametrize('read', [keys.read_pair, keys.read_public])
def test_a_file_that_is_not_there_is_no_key_of_later(tmp_path, read):
    with pytest.raises(keys.BadKey, match='No such file') as caught:
        read(str(tmp_path / 'nobody.key'))
    assert not isinstance(caught.value, keys.NoKey)


def test_a_pair_that_cannot_be_written_leaves_no_file(tmp_path, monkeypatch):
    def full(path, *args, **kwargs):
        written.append(path)
        with open(path, 'w') as file:
            file.write('#')
        if len(written) == files:
            raise OSError(errno.ENOSPC, 'No space left on device')
    for files in (1, 2):
        written = []
        with monkeypatch.context() as patched:
            patched.setattr(zmq.auth.certs, '_write_key_file', full)
            with pytest.raises(OSError, match='No space'):
                keys.create(str(tmp_path), 'node-1')
        assert len(written) == files and not list(tmp_path.iterdir())
    assert keys.create(str(tmp_path), 'node-1')


def test_two_halves_of_different_pairs_are_refused(pair, tmp_path):
    other = keys.read_pair(keys.create(str(tmp_path), 'other')[1])
    mine = keys.read_pair(pair[1])
    path = tmp_path / 'mixed.key_secret'
    path.write_text((tmp_path / 'node-1.key_secret').read_text().replace(
        mine.secret.decode(), other.secret.decode()))
    os.chmod(path, 0o600)
    with pytest.raises(keys.BadKey, match='does not belong'):
        keys.read_pair(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(keys.BadKey, match='No such file'):
        keys.read_pair(str(tmp_path / 'nobody.key_secret'))


def test_a_fingerprint_is_that_of_one_key(pair, tmp_path):
    one = keys.read_public(pair[0])
    other = keys.read_public(keys.create(str(tmp_path), 'other')[0])
    assert keys.fingerprint(one) == keys.fingerprint(one)
    assert keys.fingerprint(one) != keys.fingerprint(other)
    assert keys.fingerprint(one).startswith('SHA256:')
