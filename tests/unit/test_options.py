# SPDX-License-Identifier: Apache-2.0
"""The options: where they may be given, what is refused, and the directory.
"""

import ctypes
import math
import os
import pickle
import socket
import stat

import pytest
from oslo_config import cfg
from oslo_config import generator
from oslo_log import versionutils

from tests.support import forks
from zmq_threaded import ipc_directory
from zmq_threaded import legacy_options
from zmq_threaded import live_options
from zmq_threaded import options

NOBODY = 65534
NOWHERE = '/proc/nowhere'

# A value of every live option that is not its default, and the attribute of
# Settings that it becomes.
LIVE = {
    'rpc_zmq_matchmaker': ('dummy', 'matchmaker', 'embedded'),
    'rpc_zmq_ipc_dir': ('/a/b', 'ipc_dir', '/a/b'),
    'rpc_zmq_topology': ('receiver', 'topology', 'receiver'),
    'use_router_proxy': ('true', 'topology', 'receiver'),
    'rpc_zmq_port': ('9502', 'receiver_port', 9502),
    'rpc_zmq_metrics_address': ('[::1]:1', 'metrics_address', '[::1]:1'),
    'rpc_zmq_transport': ('tcp', 'transport', 'tcp'),
    'rpc_zmq_bind_address': ('::1', 'bind_address', '::1'),
    'rpc_zmq_host': ('node-1', 'host', 'node-1'),
    'rpc_zmq_encryption': ('serve', 'encryption', 'serve'),
    'rpc_zmq_key_file': ('/k', 'key_file', '/k'),
    'rpc_zmq_trusted_keys': ('/t', 'trusted_keys', '/t'),
    'rpc_zmq_min_port': ('60000', 'ports', range(60000, 65536)),
    'rpc_zmq_max_port': ('50000', 'ports', range(49153, 50001)),
    'rpc_zmq_bind_port_retries': ('7', 'bind_retries', 7),
    'rpc_zmq_contexts': ('3', 'io_threads', 3),
    'rpc_zmq_topic_backlog': ('17', 'backlog', 17),
    'rpc_zmq_stuck_workers_after': ('61', 'stuck_after', 61.0),
    'rpc_zmq_max_message_size': ('2000000', 'max_message_size', 2000000),
    'rpc_zmq_outbox_limit': ('18', 'outbox_limit', 18),
    'rpc_cast_timeout': ('1.5', 'cast_timeout', 1.5),
    'rpc_zmq_exit_timeout': ('0.5', 'exit_timeout', 0.5),
    'rpc_message_ttl': ('19', 'message_ttl', 19.0),
    'rpc_zmq_custody': ('disk', 'custody', 'disk'),
    'rpc_zmq_custody_dir': ('/a/c', 'custody_dir', '/a/c'),
    'rpc_zmq_custody_ttl': ('25', 'custody_ttl', 25.0),
    'rpc_zmq_custody_bytes': ('70000', 'custody_bytes', 70000),
    'rpc_zmq_custody_when_full': ('memory', 'custody_when_full', 'memory'),
    'zmq_linger': ('5', 'linger', 5.0),
    'zmq_target_expire': ('40', 'expire', 40.0),
    'zmq_target_update': ('3', 'update', 3.0),
    'rpc_zmq_executor': ('server', 'executor', 'server'),
    'rpc_zmq_serialization': ('msgpack', 'serialization', 'msgpack'),
    'rpc_conn_pool_size': ('20', 'pool_size', 20),
    'conn_pool_ttl': ('21', 'pool_ttl', 21.0),
    'zmq_tcp_keepalive': ('1', 'keepalive', 1),
    'zmq_tcp_keepalive_idle': ('22', 'keepalive_idle', 22),
    'zmq_tcp_keepalive_cnt': ('23', 'keepalive_cnt', 23),
    'zmq_tcp_keepalive_intvl': ('24', 'keepalive_intvl', 24),
    'rpc_zmq_bridge': ('rabbit://a:b@c/', 'bridge', 'rabbit://a:b@c/'),
    'rpc_zmq_bridge_send': ('zmq', 'bridge_send', 'zmq'),
}
LEGACY = {
    'rpc_poll_timeout': '1', 'rpc_thread_pool_size': '100',
    'rpc_zmq_concurrency': 'eventlet', 'use_pub_sub': 'true',
    'rpc_zmq_port_pub': '50001', 'subscribe_on': 'a,b',
    'use_dynamic_connections': 'false', 'zmq_failover_connections': '2',
    'zmq_immediate': 'true', 'rpc_use_acks': 'true',
    'rpc_ack_timeout_base': '15', 'rpc_ack_timeout_multiplier': '2',
    'rpc_retry_attempts': '3', 'matchmaker_heartbeat_freq': '300',
    'matchmaker_heartbeat_ttl': '600',
}
# What an option needs beside it.
WITH = {
    'rpc_zmq_encryption': {'rpc_zmq_key_file': '/k', 'rpc_zmq_trusted_keys':
                           '/t'},
    'rpc_zmq_key_file': {'rpc_zmq_trusted_keys': '/t'},
    'rpc_zmq_trusted_keys': {'rpc_zmq_key_file': '/k'},
}
NUMBERS = [name for name, (text, _, _) in LIVE.items()
           if text.replace('.', '').isdigit()]
BAD = [(name, 'many') for name in NUMBERS] + [
    ('rpc_zmq_min_port', '65536'), ('rpc_zmq_min_port', '-1'),
    ('rpc_zmq_min_port', '0'),
    ('rpc_zmq_max_port', '0'), ('rpc_zmq_max_port', '65537'),
    ('rpc_zmq_topology', 'proxy'), ('rpc_zmq_topology', 'Receiver'),
    ('use_router_proxy', 'perhaps'), ('rpc_zmq_port', '0'),
    ('rpc_zmq_port', '65536'), ('rpc_zmq_port', '-1'),
    ('rpc_zmq_transport', 'udp'), ('rpc_zmq_transport', 'IPC'),
    ('rpc_zmq_serialization', 'pickle'),
    ('rpc_zmq_encryption', 'on'), ('rpc_zmq_encryption', 'Required'),
    ('rpc_zmq_matchmaker', 'nonsense'),
    ('rpc_zmq_bind_port_retries', '0'),
    ('rpc_zmq_max_message_size', '1023'),
    ('rpc_zmq_max_message_size', '2147483649'),
    ('rpc_zmq_contexts', '0'), ('rpc_zmq_contexts', '65'),
    ('rpc_zmq_stuck_workers_after', '0'),
    ('rpc_zmq_topic_backlog', '0'), ('rpc_zmq_outbox_limit', '0'),
    ('rpc_cast_timeout', '-1.1'), ('rpc_zmq_exit_timeout', '-1'),
    ('rpc_message_ttl', '0'), ('rpc_zmq_custody', 'ram'),
    ('rpc_zmq_custody_ttl', '0'), ('rpc_zmq_custody_bytes', '65535'),
    ('rpc_zmq_custody_when_full', 'drop'),
    ('rpc_zmq_custody_dir', 'journals'), ('rpc_zmq_custody_dir', '~/j'),
    ('zmq_linger', '-2'), ('zmq_target_expire', '2'),
    ('zmq_target_update', '0'), ('zmq_target_update', '30'),
    ('zmq_target_update', '31'), ('rpc_conn_pool_size', '0'),
    ('conn_pool_ttl', '0'),
    ('zmq_tcp_keepalive', '2'), ('rpc_zmq_bridge_send', 'rabbit'),
]


@pytest.fixture
def config(tmp_path):
    """config(text): oslo.config with a file of this text."""
    def make(text=''):
        path = tmp_path / 'service.conf'
        path.write_text(text)
        conf = cfg.ConfigOpts()
        conf([], project='zmq_threaded_tests', default_config_dirs=[],
             default_config_files=[str(path)])
        return conf
    return make


@pytest.fixture
def deprecations(monkeypatch, caplog):
    """What oslo.config says, which else it says only once in a process."""
    monkeypatch.setattr(versionutils, '_deprecated_messages_sent', {})
    for option in legacy_options.OPTIONS:
        monkeypatch.setattr(option, '_logged_deprecation', False)
    return caplog


def in_group(name, text, group=options.GROUP):
    return f'[{group}]\n{name} = {text}\n'


# Where options may be given


def test_these_tables_have_every_option():
    # rpc_zmq_sentinel_group means something with sentinels only, see below.
    assert LIVE.keys() | {'rpc_zmq_sentinel_group'} == {
        option.name for option in live_options.OPTIONS}
    assert LEGACY.keys() == {option.name
                             for option in legacy_options.OPTIONS}


@pytest.mark.parametrize('name', LIVE)
def test_default_is_another(config, name, monkeypatch):
    monkeypatch.delenv(f'OS_OSLO_MESSAGING_ZMQ__{name.upper()}',
                       raising=False)
    _, attribute, value = LIVE[name]
    default = getattr(options.read(config(), {}), attribute)
    assert default != value or name == 'rpc_zmq_matchmaker'


@pytest.mark.parametrize('name', LIVE)
def test_live_option_in_the_url(config, name):
    text, attribute, value = LIVE[name]
    query = {**WITH.get(name, {}), name: text}
    assert getattr(options.read(config(), query), attribute) == value


@pytest.mark.parametrize('group', [options.GROUP, 'DEFAULT'])
@pytest.mark.parametrize('name', LIVE)
def test_live_option_in_a_file(config, name, group):
    text, attribute, value = LIVE[name]
    settings = options.read(config(in_group(name, text, group)),
                            WITH.get(name, {}))
    assert getattr(settings, attribute) == value


@pytest.mark.parametrize('name', LIVE)
def test_default_section_is_deprecated(config, name, deprecations):
    options.read(config(in_group(name, LIVE[name][0], 'DEFAULT')),
                 WITH.get(name, {}))
    assert (f'Use option "{name}" from group "{options.GROUP}"'
            in deprecations.text)


def test_the_url_wins_over_the_file(config):
    conf = config(in_group('rpc_zmq_contexts', 2))
    assert options.read(conf, {'rpc_zmq_contexts': '3'}).io_threads == 3
    assert options.read(conf, {}).io_threads == 2


def test_drivers_with_different_urls_share_one_conf(config):
    conf = config()
    limits = [options.read(conf, {'rpc_zmq_outbox_limit': limit}).outbox_limit
              for limit in ('1', '2')]
    assert limits == [1, 2]


def test_host_is_that_of_this_machine(config):
    assert options.read(config(), {}).host == socket.gethostname()


@pytest.mark.parametrize('name', ['rpc_zmq_nonsense', 'RPC_ZMQ_CONTEXTS', ''])
def test_unknown_name_in_the_url_is_refused(config, name):
    with pytest.raises(options.InvalidOption, match=f'^{name}: '):
        options.read(config(), {name: '1'})


# Names of old


@pytest.mark.parametrize('name', LEGACY)
def test_legacy_option_does_nothing_in_the_url(config, name):
    conf = config()
    assert options.read(conf, {name: LEGACY[name]}) == options.read(conf, {})


@pytest.mark.parametrize('group', [options.GROUP, 'DEFAULT'])
@pytest.mark.parametrize('name', LEGACY)
def test_legacy_option_does_nothing_in_a_file(config, name, group):
    conf = config(in_group(name, LEGACY[name], group))
    assert options.read(conf, {}) == options.read(config(), {})
    assert getattr(conf[options.GROUP], name) is not None


@pytest.mark.parametrize('text', ['', 'nonsense'])
@pytest.mark.parametrize('name', LEGACY)
def test_value_of_a_legacy_option_does_not_matter(config, name, text):
    conf = config(in_group(name, text))
    assert options.read(conf, {}) == options.read(config(), {})


@pytest.mark.parametrize('option', legacy_options.OPTIONS,
                         ids=lambda option: option.name)
def test_legacy_option_says_why_it_is_gone(option):
    assert option.deprecated_for_removal
    assert option.deprecated_reason.endswith('.')
    assert option.help == 'Accepted and ignored.'


@pytest.mark.parametrize('name', LEGACY)
def test_legacy_option_that_is_set_is_logged_with_its_reason(
        config, name, deprecations):
    options.read(config(in_group(name, LEGACY[name])), {})
    option, = (option for option in legacy_options.OPTIONS
               if option.name == name)
    assert f'"{name}"' in deprecations.text
    assert option.deprecated_reason in deprecations.text


# The topology


@pytest.mark.parametrize('given, topology', [
    ({}, 'direct'),
    ({'rpc_zmq_topology': 'direct'}, 'direct'),
    ({'use_router_proxy': 'true'}, 'receiver'),
    ({'use_router_proxy': 'false'}, 'direct'),
    ({'use_router_proxy': 'true', 'rpc_zmq_topology': 'direct'}, 'direct'),
    ({'use_router_proxy': 'false', 'rpc_zmq_topology': 'receiver'},
     'receiver')])
def test_topology_wins_over_its_name_of_old(config, given, topology):
    assert options.read(config(), given).topology == topology


def test_name_of_old_in_the_url_does_not_win_over_the_topology_of_the_file(
        config):
    conf = config(in_group('rpc_zmq_topology', 'direct'))
    assert options.read(conf, {'use_router_proxy': '1'}).topology == 'direct'


@pytest.mark.parametrize('is_embedded, topology', [
    (True, 'direct'), (False, 'receiver')])
def test_topology_follows_the_registry_when_nothing_is_said(is_embedded,
                                                            topology):
    assert options._topology(None, None, is_embedded) == topology


def test_transport_is_ipc_with_the_embedded_registry(config):
    assert options.read(config(), {}).transport == 'ipc'


def test_receiver_port_is_that_of_old(config):
    assert options.read(config(), {}).receiver_port == 9501


def test_use_router_proxy_says_what_to_set(config, deprecations, monkeypatch):
    option, = (option for option in live_options.OPTIONS
               if option.name == 'use_router_proxy')
    monkeypatch.setattr(option, '_logged_deprecation', False)
    options.read(config(in_group('use_router_proxy', 'true')), {})
    assert '"use_router_proxy"' in deprecations.text
    assert 'rpc_zmq_topology' in deprecations.text


@pytest.mark.parametrize('name, group', [
    ('use_router_proxy', options.GROUP), ('rpc_poll_timeout', options.GROUP),
    ('wait_timeout', legacy_options.REDIS_GROUP)])
def test_a_configuration_that_was_pickled_after_a_deprecation_can_be_read(
        config, deprecations, monkeypatch, name, group):
    conf = config(in_group(name, '1', group))
    settings = options.read(conf, {})
    copy = pickle.loads(pickle.dumps(conf))
    for option in (live_options.OPTIONS + legacy_options.OPTIONS
                   + legacy_options.REDIS_OPTIONS):
        # As in a spawned process, which has told nothing yet.
        monkeypatch.setattr(option, '_logged_deprecation', False)
    assert options.read(copy, {}) == settings


def test_an_option_of_the_same_name_that_means_another_thing_is_refused(
        config):
    conf = config()
    conf.register_opt(cfg.StrOpt('rpc_zmq_port'), group=options.GROUP)
    with pytest.raises(cfg.DuplicateOptError):
        options.read(conf, {})


# What is refused


@pytest.mark.parametrize('name, text', BAD)
def test_bad_value_in_the_url_is_refused_by_name(config, name, text):
    with pytest.raises(options.InvalidOption, match=name):
        options.read(config(), {name: text})


@pytest.mark.parametrize('group', [options.GROUP, 'DEFAULT'])
@pytest.mark.parametrize('name, text', BAD)
def test_bad_value_in_a_file_is_refused_by_name(config, name, text, group):
    with pytest.raises(options.InvalidOption, match=name):
        options.read(config(in_group(name, text, group)), {})


@pytest.mark.parametrize('name', NUMBERS)
def test_number_left_empty_in_a_file_is_refused_or_the_default(config, name):
    try:
        settings = options.read(config(in_group(name, '')), {})
    except options.InvalidOption as error:
        assert name in str(error)
    else:
        assert settings == options.read(config(), {})


@pytest.mark.parametrize('text', ['nan', 'inf'])
def test_cast_timeout_is_refused_or_finite(config, text):
    try:
        settings = options.read(config(), {'rpc_cast_timeout': text})
    except options.InvalidOption as error:
        assert 'rpc_cast_timeout' in str(error)
    else:
        # No queue of Python takes an infinite time-out.
        assert math.isfinite(settings.cast_timeout)


def test_ports_the_wrong_way_round_are_refused_by_name(config):
    with pytest.raises(options.InvalidOption) as raised:
        options.read(config(), {'rpc_zmq_min_port': '50001',
                                'rpc_zmq_max_port': '50000'})
    assert 'rpc_zmq_min_port' in str(raised.value)
    assert 'rpc_zmq_max_port' in str(raised.value)


def test_range_of_one_port(config):
    assert options.read(config(), {
        'rpc_zmq_min_port': '50000',
        'rpc_zmq_max_port': '50000'}).ports == range(50000, 50001)


def test_highest_port_of_old_is_read_as_the_highest_there_is(config):
    settings = options.read(config(), {'rpc_zmq_max_port': '65536'})
    assert settings.ports[-1] == 65535


@pytest.mark.parametrize('update, expire', [(10, 10), (11, 10), (3, 3)])
def test_update_must_be_shorter_than_expire(config, update, expire):
    with pytest.raises(options.InvalidOption) as raised:
        options.read(config(), {'zmq_target_update': str(update),
                                'zmq_target_expire': str(expire)})
    assert 'zmq_target_update' in str(raised.value)
    assert 'zmq_target_expire' in str(raised.value)


@pytest.mark.parametrize('given, read', [
    ('-1', 30), ('0', 0), ('1', 1), ('30', 30), ('31', 30), ('86400', 30)])
def test_linger_is_bounded(config, given, read):
    assert options.read(config(), {'zmq_linger': given}).linger == read


@pytest.mark.parametrize('given, read', [
    ('-1', 30), ('0', 0), ('0.5', 0.5), ('86400', 86400)])
def test_cast_timeout_of_the_drivers_of_old_is_bounded(config, given, read):
    settings = options.read(config(), {'rpc_cast_timeout': given})
    assert settings.cast_timeout == read


@pytest.mark.parametrize('name', [
    'embedded', 'dummy', 'local',
    'oslo_messaging._drivers.matchmaker.MatchMakerLocalhost',
    'oslo.messaging._drivers.matchmaker.MatchMakerLocalhost'])
def test_names_of_the_embedded_registry(config, name):
    settings = options.read(config(), {'rpc_zmq_matchmaker': name})
    assert settings.matchmaker == 'embedded'


def test_reading_touches_no_file(config, tmp_path):
    missing = tmp_path / 'missing'
    options.read(config(), {'rpc_zmq_ipc_dir': str(missing)})
    assert not missing.exists()


# The sample configuration


def test_sample_configuration(tmp_path, monkeypatch):
    sample = tmp_path / 'sample.conf'
    generator.main(['--namespace', 'zmq_threaded', '--output-file',
                    str(sample)])
    lines = sample.read_text().splitlines()
    assert f'[{options.GROUP}]' in lines
    assert '#rpc_zmq_ipc_dir = /var/run/openstack' in lines
    assert '#rpc_zmq_host = localhost' in lines
    for name in (*LIVE, *LEGACY):
        assert any(line.startswith(f'#{name} = ') for line in lines), name


# The directory


def settings(ipc_dir=''):
    conf = cfg.ConfigOpts()
    conf([], project='zmq_threaded_tests', default_config_dirs=[],
         default_config_files=[])
    return options.read(conf, {'rpc_zmq_ipc_dir': ipc_dir})


def as_nobody(function, *args):
    """What a function returns for an ordinary user."""
    def child():
        os.umask(0o022)
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return function(*args)
    return forks.Forked(child).result()


def directory_or_error(ipc_dir=''):
    try:
        return ipc_directory.find(settings(ipc_dir))
    except options.InvalidOption as error:
        return f'refused: {error}'


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_directory_that_was_asked_for_is_made(ipc_dir):
    path = os.path.join(ipc_dir, 'some', 'where')
    assert ipc_directory.find(settings(path)) == path
    assert mode(path) == 0o700


def test_directory_that_was_asked_for_is_taken_as_it_is(ipc_dir):
    os.chmod(ipc_dir, 0o750)
    assert ipc_directory.find(settings(ipc_dir)) == ipc_dir
    assert mode(ipc_dir) == 0o750


@pytest.fixture
def no_default(ipc_dir, monkeypatch):
    """The default directory cannot be used; the pattern of the private one.
    """
    os.chmod(ipc_dir, 0o777)
    pattern = os.path.join(ipc_dir, 'private-%d')
    monkeypatch.setattr(ipc_directory, '_DEFAULT', NOWHERE)
    monkeypatch.setattr(ipc_directory, '_FALLBACK', pattern)
    return pattern


@pytest.fixture
def private(no_default):
    """Where the private directory of this user would be."""
    return no_default % os.getuid()


def test_directory_that_was_asked_for_never_falls_back(no_default, ipc_dir):
    path = os.path.join(ipc_dir, 'file')
    open(path, 'w').close()
    for unusable in (NOWHERE, path, os.path.join(path, 'below')):
        with pytest.raises(options.InvalidOption, match='rpc_zmq_ipc_dir'):
            ipc_directory.find(settings(unusable))
    assert os.listdir(ipc_dir) == ['file']


@pytest.mark.skipif(os.getuid() != 0, reason='chown is for root')
@pytest.mark.parametrize('mode', [0o700, 0o755, 0o711])
def test_directory_that_may_not_be_written_never_falls_back(
        no_default, ipc_dir, mode):
    path = os.path.join(ipc_dir, 'of-root')
    os.mkdir(path)
    os.chmod(path, mode)
    refused = as_nobody(directory_or_error, path)
    assert refused.startswith('refused: rpc_zmq_ipc_dir')
    assert path in refused
    assert os.listdir(ipc_dir) == ['of-root']


def test_default_is_taken_when_it_can_be(ipc_dir, monkeypatch):
    default = os.path.join(ipc_dir, 'default')
    monkeypatch.setattr(ipc_directory, '_DEFAULT', default)
    assert ipc_directory.find(settings()) == default
    assert mode(default) == 0o700


def test_default_falls_back_to_a_private_directory(private):
    for _ in range(2):
        assert ipc_directory.find(settings()) == private
        assert mode(private) == 0o700


def warnings(caplog):
    return [record.getMessage() for record in caplog.records
            if record.levelname == 'WARNING']


def test_default_that_is_there_and_unusable_is_a_warning_with_the_reason(
        private, ipc_dir, monkeypatch, caplog):
    default = os.path.join(ipc_dir, 'default')
    open(default, 'w').close()
    monkeypatch.setattr(ipc_directory, '_DEFAULT', default)
    assert ipc_directory.find(settings()) == private
    line, = warnings(caplog)
    assert default in line and private in line and 'File exists' in line


def test_default_that_is_not_there_is_no_warning(private, caplog):
    assert ipc_directory.find(settings()) == private
    assert warnings(caplog) == []


@pytest.mark.parametrize('bits, warned', [
    (0o700, ''), (0o2770, ''), (0o755, 'may enter'), (0o711, 'may enter'),
    (0o777, 'may write'), (0o1777, 'may write'), (0o703, 'may write')])
def test_directory_that_everybody_may_enter_is_one_warning(ipc_dir, caplog,
                                                           bits, warned):
    os.chmod(ipc_dir, bits)
    for _ in range(2):
        ipc_directory.find(settings(ipc_dir))
    assert [ipc_dir in line and 'every user' in line and warned in line
            for line in warnings(caplog)] == [True] * bool(warned)


def test_refused_directory_says_whose_it_is(ipc_dir):
    if os.getuid() != 0:
        pytest.skip('setuid is for root')
    refused = as_nobody(directory_or_error, ipc_dir)
    assert 'user 0' in refused and '0700' in refused


@pytest.mark.skipif(os.getuid() != 0, reason='mount is for root')
def test_directory_on_a_read_only_file_system_says_so(ipc_dir):
    def child():
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(0x20000) == 0       # CLONE_NEWNS
        for arguments in ((b'none', b'/', None, 0x44000, None),
                          (b'x', ipc_dir.encode(), b'tmpfs', 1, None)):
            assert libc.mount(*arguments) == 0, ctypes.get_errno()
        said = []
        ipc_directory.LOG.warning = lambda *args: said.append(
            args[0] % args[1:]
        )
        return [ipc_directory.find(settings(ipc_dir)), *said]
    path, said = forks.Forked(child).result()[:2]
    assert path == ipc_dir and 'read-only file system' in said


def test_ordinary_user_falls_back_to_tmp(monkeypatch):
    monkeypatch.setattr(ipc_directory, '_DEFAULT', NOWHERE)
    uid = NOBODY if os.getuid() == 0 else os.getuid()
    path = f'/tmp/openstack-zmq-{uid}'
    existed = os.path.exists(path)
    try:
        assert as_nobody(directory_or_error) == path
        assert mode(path) == 0o700
        assert os.stat(path).st_uid == uid
    finally:
        if not existed:
            os.rmdir(path)


def test_private_directory_ignores_a_generous_umask(private):
    before = os.umask(0)
    try:
        assert ipc_directory.find(settings()) == private
    finally:
        os.umask(before)
    assert mode(private) == 0o700


@pytest.mark.parametrize('bits', [0o770, 0o750, 0o707, 0o701, 0o720])
def test_private_directory_that_others_may_enter_is_refused(private, bits):
    os.mkdir(private)
    os.chmod(private, bits)
    assert_refused(private)


def assert_refused(private):
    refused = directory_or_error()
    assert refused.startswith('refused: rpc_zmq_ipc_dir')
    assert private in refused


def test_private_directory_that_is_a_link_is_refused(private, ipc_dir):
    target = os.path.join(ipc_dir, 'target')
    os.mkdir(target, 0o700)
    os.symlink(target, private)
    assert_refused(private)


def test_private_directory_that_is_a_dangling_link_is_refused(private):
    os.symlink(NOWHERE, private)
    assert_refused(private)


def test_private_directory_that_is_a_file_is_refused(private):
    open(private, 'w').close()
    os.chmod(private, 0o700)
    assert_refused(private)


@pytest.mark.skipif(os.getuid() != 0, reason='chown is for root')
def test_private_directory_of_another_user_is_refused(private):
    os.mkdir(private, 0o700)
    os.chown(private, NOBODY, NOBODY)
    assert_refused(private)


@pytest.mark.skipif(os.getuid() != 0, reason='chown is for root')
def test_private_directory_of_root_is_refused_to_others(no_default):
    os.mkdir(no_default % NOBODY, 0o700)
    assert as_nobody(directory_or_error).startswith('refused: ')


# The registry


@pytest.mark.parametrize('text', [
    in_group('rpc_zmq_sentinel_group', 'masters'),
    in_group('sentinel_group_name', 'masters', 'matchmaker_redis')])
def test_sentinel_group_is_in_the_url_of_the_registry(config, text):
    settings = options.read(config(text), {'rpc_zmq_matchmaker': 'sentinel'})
    assert 'sentinel=masters' in settings.matchmaker


def test_matchmaker_redis_says_where_redis_is(config):
    conf = config('[matchmaker_redis]\nhost = h1\nport = 6380\n'
                  'password = secret\nsocket_timeout = 5000\n')
    settings = options.read(conf, {'rpc_zmq_matchmaker': 'redis'})
    assert settings.matchmaker == (
        'redis://:secret@h1:6380?socket_timeout=5.0')
    assert 'secret' not in repr(settings)


def test_the_topology_is_that_of_a_receiver_with_a_registry_of_many(config):
    settings = options.read(config(), {}, 'redis')
    assert (settings.topology, settings.transport) == ('receiver', 'tcp')
    assert options.read(config(), {}).topology == 'direct'


def test_hidden_options_are_not_in_the_sample_but_work(config):
    listed = {option.name for _, those in options.list_opts()
              for option in those}
    assert 'rpc_zmq_two_message_replies' not in listed
    assert options.read(
        config(), {'rpc_zmq_two_message_replies': 'true'}).two_messages
    assert not options.read(config(), {}).two_messages


# Encryption


@pytest.mark.parametrize('mode, expected', [
    (None, 'required'), ('disabled', 'disabled'), ('connect', 'connect'),
    ('serve', 'serve'), ('required', 'required')])
def test_encryption_is_required_where_there_are_keys(config, mode, expected):
    query = {**WITH['rpc_zmq_encryption'],
             **({'rpc_zmq_encryption': mode} if mode else {})}
    assert options.read(config(), query).encryption == expected


def test_encryption_is_disabled_without_keys(config):
    assert options.read(config(), {}).encryption == 'disabled'


@pytest.mark.parametrize('query, named', [
    ({'rpc_zmq_encryption': mode}, 'rpc_zmq_key_file')
    for mode in ('connect', 'serve', 'required')] + [
    ({'rpc_zmq_trusted_keys': '/t'}, 'rpc_zmq_key_file'),
    ({'rpc_zmq_key_file': '/k'}, 'rpc_zmq_trusted_keys')])
def test_half_of_what_encryption_needs_is_refused(config, query, named):
    with pytest.raises(options.InvalidOption, match=f'^{named}'):
        options.read(config(), query)
