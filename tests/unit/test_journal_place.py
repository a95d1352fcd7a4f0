# SPDX-License-Identifier: Apache-2.0
"""Which journals are those of a registry, and who may read them."""

import os

import pytest
from oslo_config import cfg

from tests.support import forks
from tests.support import ids
from zmq_threaded import options
from zmq_threaded.journal import locks
from zmq_threaded.journal import making
from zmq_threaded.journal import place as places
from zmq_threaded.registry import tooz_url

_NOBODY = 65534
SENTINELS = 'redis://a:1?sentinel=group&sentinel_fallback='


@pytest.mark.parametrize('one, other', [
    ('redis://h1:6379', 'redis://h1'),
    ('redis://h1:6379', 'redis://h1:6379/'),
    ('redis://h1:6379', 'redis://H1:6379'),
    ('redis://h1:6379', 'REDIS://h1:6379'),
    ('redis://h1:6379', 'redis://:pw@h1:6379'),
    ('redis://h1:6379', 'redis://default:pw%2F@h1:6379'),
    ('redis://h1:6379', 'redis://h1:6379?db=0'),
    ('redis://h1:6379', 'redis://h1:6379?namespace=_tooz'),
    ('redis://h1:6379?db=7', 'redis://h1:6379?socket_timeout=9&db=7'),
    ('redis://h1:6379', 'redis://h1:6379?ssl=true&ssl_ca_certs=/ca.pem'),
    ('redis://[::AB]', 'redis://[::ab]:6379'),
    ('redis:///run/redis.sock', 'redis:///run/redis.sock?db=0'),
    (SENTINELS + 'b:2', 'redis://b:2?sentinel_fallback=a:1&sentinel=group'),
    (SENTINELS + 'b:2', SENTINELS + 'B:2&sentinel_password=pw'),
    (SENTINELS + 'b:2', SENTINELS + 'b:2&sentinel_fallback=b:2'),
    ('etcd3+http://h1:2379', 'etcd3+http://h1'),
    ('etcd3+http://h1:2379', 'etcd3+https://h1:2379?ca_cert=/ca.pem'),
    ('etcd3+http://', 'etcd3+http://localhost:2379'),
    ('etcd3+http://h1', 'etcd3+http://h1?api_version=v3&timeout=9'),
    ('zookeeper://h1,h2', 'zookeeper://h2:2181,h1:2181'),
    ('zookeeper://h1,h2', 'kazoo://u:p@h1,h2'),
    ('zookeeper://h1', 'zookeeper://h1?namespace=tooz&use_ssl=true')])
def test_spellings_of_one_registry(one, other):
    assert places.registry_of(one) == places.registry_of(other)


@pytest.mark.parametrize('one, other', [
    ('redis://h1:6379', 'redis://h1:6380'),
    ('redis://h1:6379', 'redis://h2:6379'),
    ('redis://h1:6379', 'redis://h1:6379?db=1'),
    ('redis://h1:6379?db=1', 'redis://h1:6379?db=10'),
    ('redis://h1:6379', 'redis://h1:6379?namespace=mine'),
    ('redis:///run/redis.sock', 'redis:///run/other.sock'),
    ('redis://a:1', 'redis://a:1?sentinel=group'),
    (SENTINELS + 'b:2', SENTINELS + 'c:2'),
    (SENTINELS + 'b:2', 'redis://a:1?sentinel=other&sentinel_fallback=b:2'),
    (SENTINELS + 'b:2', SENTINELS + 'b:2&db=1'),
    ('etcd3+http://h1', 'etcd3+http://h2'),
    ('etcd3+http://h1:2379', 'zookeeper://h1:2379'),
    ('zookeeper://h1', 'zookeeper://h1?namespace=mine'),
    ('memcached://h1', 'memcached://h2')])
def test_different_registries(one, other):
    assert places.registry_of(one) != places.registry_of(other)


def test_no_secret_is_written_into_a_journal():
    assert 's3cret' not in places.registry_of(
        'redis://s3cret:s3cret@h1?sentinel=g&sentinel_username=s3cret'
        '&sentinel_password=s3cret&sentinel_fallback=s3cret:s3cret@h2:1')


@pytest.fixture
def place_of(tmp_path):
    def make(url):
        settings = options.read(cfg.CONF, {
            'rpc_zmq_custody_dir': str(tmp_path / 'journals'),
            'rpc_zmq_matchmaker': url})
        return places.of(settings, str(tmp_path))
    return make


def test_a_registry_finds_its_journals_by_each_spelling(place_of):
    one = place_of('redis://h1')
    made = making.create(one, ids.MAKER, is_synced=False)
    made.close()
    locks.release(places.lock_of(made.path))
    assert place_of('redis://:pw@H1:6379').journals() == [made.path]
    assert place_of('redis://h2').journals() == []


def test_journals_that_an_earlier_release_has_named_are_found(place_of,
                                                              tmp_path):
    url = 'redis://user:pw@H1:6379?socket_timeout=9'
    former = places.Place(str(tmp_path / 'journals'), str(tmp_path),
                          tooz_url.without_password(url))
    made = making.create(former, ids.MAKER, is_synced=False)
    made.close()
    locks.release(places.lock_of(made.path))
    stray = places.lock_of(former.new(b'stray---'))
    locks.create(stray, 0o600, -1)
    locks.release(stray)
    place = place_of(url)
    assert place.journals() == [made.path]
    assert place.stray_locks() == [stray]
    # New ones have the name that does not depend on the spelling.
    assert os.path.basename(place.new(b'maker')) == os.path.basename(
        place_of('redis://h1').new(b'maker'))
    # Nobody can know that the text of another spelling meant the same.
    assert place_of('redis://h1').journals() == []


# Rights

@pytest.fixture
def warned(monkeypatch):
    found = []
    monkeypatch.setattr(places.LOG, 'warning', lambda text, *arguments:
                        found.append(text % arguments))
    return found


@pytest.mark.parametrize('mode', [0o700, 0o744])
@pytest.mark.skipif(os.getuid() != 0, reason='only root can be another user')
def test_a_directory_of_another_user_is_reported_once(ipc_dir, warned, mode):
    os.chmod(ipc_dir, 0o755)
    path = os.path.join(ipc_dir, 'journals')
    os.mkdir(path)
    os.chmod(path, mode)

    def as_nobody():
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
        # Each driver has a Place.
        for _ in range(2):
            place = places.Place(path, '/nowhere', 'registry')
            assert place.journals() == place.journals() == []
        return warned
    text, = forks.Forked(as_nobody).result()
    for part in ('rpc_zmq_custody_dir', f'user {_NOBODY}', path,
                 'Permission denied', 'same user', '2770'):
        assert part in text
    # It is reported of each process.
    assert len(forks.Forked(as_nobody).result()) == 1


def test_it_is_reported_again_if_it_was_mended_meanwhile(tmp_path, warned):
    path = tmp_path / 'journals'
    place = places.Place(str(path), '/nowhere', 'registry')
    assert place.journals() == [] and not warned     # not there yet
    for _ in range(2):
        path.touch()
        assert place.journals() == place.journals() == []
        path.unlink()
        path.mkdir()
        assert place.journals() == []
        path.rmdir()
    assert len(warned) == 2 and 'Not a directory' in warned[0]
