# SPDX-License-Identifier: Apache-2.0
"""Engines of the registry that take TLS alone, and certificates for them."""

import contextlib
import os
import shutil
import subprocess
import tempfile

import pytest

import zmq_threaded
from tests.support import ports as tcp
from tests.support import servers

# Of an ACL, as docs/operations.md has it.
_PAGE = os.path.join(os.path.dirname(zmq_threaded.__file__), 'docs',
                     'operations.md')


def _rights():
    with open(_PAGE, encoding='utf-8') as file:
        line, = (line for line in file if 'user zmq on >password' in line)
    return line.split()[4:]


RIGHTS = _rights()


class Certificates:
    """A CA, and certificates that it has signed.

    :ivar ca: path of the certificate of the CA
    """

    def __init__(self, folder, name='ca'):
        self._folder = folder
        self._key = os.path.join(folder, f'{name}.key')
        self.ca = os.path.join(folder, f'{name}.pem')
        _openssl('req', '-x509', *_NEW_KEY, '-days', '2', '-subj',
                 f'/CN=the {name}', '-keyout', self._key, '-out', self.ca)

    def of(self, name, subject='IP:127.0.0.1'):
        """Paths of a certificate and its key.

        :param subject: its alternative name, for which it is good
        """
        certificate, key, request, more = (
            os.path.join(self._folder, f'{name}.{kind}')
            for kind in ('pem', 'key', 'csr', 'ext'))
        with open(more, 'w') as file:
            print(f'subjectAltName={subject}', file=file)
        _openssl('req', *_NEW_KEY, '-subj', f'/CN={name}', '-keyout', key,
                 '-out', request)
        _openssl('x509', '-req', '-in', request, '-CA', self.ca, '-CAkey',
                 self._key, '-CAcreateserial', '-days', '2', '-extfile',
                 more, '-out', certificate)
        return certificate, key


_NEW_KEY = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
            '-nodes')


def _openssl(*arguments):
    subprocess.run(['openssl', *arguments], check=True, capture_output=True)


class TlsEngine(servers.Engine):
    """One that has a port for clients of the CA only.

    :ivar certificates: Certificates
    :ivar client: (certificate, key) of a client
    """

    subject = 'IP:127.0.0.1'
    coordinator = servers.Redis.coordinator

    def _make(self):
        self.certificates = Certificates(self._folder)
        self._own = self.certificates.of('server', self.subject)
        self.client = self.certificates.of('client')
        return self._make_servers()


class TlsRedis(TlsEngine):
    """With a user who may do only what the driver needs.

    :ivar asks_for_certificates: whether clients have to show one
    """

    binaries, package = ['redis-server', 'openssl'], 'redis-server openssl'
    user, password, escaped = 'zmq', 'p@ss/wörd:?#%', (
        'p%40ss%2Fw%C3%B6rd%3A%3F%23%25')
    asks_for_certificates = 'no'

    def _make_servers(self):
        self.port = tcp.free_port()
        self.url = (f'redis://{self.user}:{self.escaped}@127.0.0.1:'
                    f'{self.port}?ssl=true'
                    f'&ssl_ca_certs={self.certificates.ca}')
        return [servers._Server(
            self._command(self.port, self.data(),
                          self.asks_for_certificates), self.port)]

    def _command(self, port, folder, asks='no'):
        path = os.path.join(folder, 'users.acl')
        with open(path, 'w') as file:
            print('user default off', file=file)
            print(f'user {self.user} on >{self.password}', *RIGHTS, file=file)
            print('user admin on >admin ~* &* +@all', file=file)
        return ['redis-server', '--port', '0', '--aclfile', path,
                *self._tls(port, asks), '--dir', folder, '--save', '']

    def _tls(self, port, asks):
        certificate, key = self._own
        return ['--tls-port', str(port), '--bind', '127.0.0.1',
                '--tls-cert-file', certificate, '--tls-key-file', key,
                '--tls-ca-cert-file', self.certificates.ca,
                '--tls-auth-clients', asks]

class TlsRedisOfClients(TlsRedis):
    """Which takes clients with a certificate alone."""

    asks_for_certificates = 'yes'

    def _make_servers(self):
        made = super()._make_servers()
        certificate, key = self.client
        self.url += f'&ssl_certfile={certificate}&ssl_keyfile={key}'
        return made


class TlsRedisOfAnotherHost(TlsRedis):
    """Whose certificate is good, but for another name."""

    subject = 'DNS:elsewhere.example.org'

    def _wait_until_usable(self):
        """Nobody can use it."""


class TlsSentinel(TlsRedis):
    """A master and two sentinels, all with TLS and a user."""

    binaries, package = ['redis-server', 'redis-sentinel', 'openssl'], (
        'redis-server redis-sentinel openssl')

    def _make_servers(self):
        self.ports = tcp.free_ports(3)
        self.url = (f'redis://{self.user}:{self.escaped}@127.0.0.1:'
                    f'{self.ports[1]}?sentinel=ours'
                    f'&sentinel_fallback=127.0.0.1:{self.ports[2]}'
                    f'&ssl=true&ssl_ca_certs={self.certificates.ca}'
                    '&sentinel_ssl=true&sentinel_username=look'
                    '&sentinel_password=l%20%2B%25k')
        return [servers._Server(
            self._command(self.ports[0], self.data('master')),
            self.ports[0]), *map(self._sentinel, self.ports[1:])]

    def _sentinel(self, port):
        path = os.path.join(self.data(str(port)), 'sentinel.conf')
        tls = self._tls(port, 'no')
        with open(path, 'w') as conf:
            print('port 0', *(f'{name[2:]} {value}' for name, value in
                              zip(tls[::2], tls[1::2])),
                  'tls-replication yes', f'dir {self.data(str(port))}',
                  f'sentinel monitor ours 127.0.0.1 {self.ports[0]} 1',
                  'sentinel auth-user ours admin',
                  'sentinel auth-pass ours admin',
                  'user default off',
                  'user look on "#' + _sha256('l +%k')
                  + '" &* -@all +sentinel +ping +client',
                  sep='\n', file=conf)
        return servers._Server(['redis-sentinel', path], port)


def _sha256(text):
    import hashlib
    return hashlib.sha256(text.encode()).hexdigest()


class TlsEtcd(TlsEngine):
    """Which takes clients with a certificate alone."""

    binaries, package = ['etcd', 'openssl'], 'etcd-server openssl'

    def _make_servers(self):
        self.port, peers = tcp.free_ports(2)
        client, peer = f'https://127.0.0.1:{self.port}', (
            f'http://127.0.0.1:{peers}')
        certificate, key = self.client
        self.url = (f'etcd3+{client}?ca_cert={self.certificates.ca}'
                    f'&cert_cert={certificate}&cert_key={key}')
        return [servers._Server([
            'etcd', '--data-dir', self.data(), '--name', 'ours',
            '--listen-client-urls', client, '--advertise-client-urls', client,
            '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer,
            '--initial-cluster', f'ours={peer}', '--cert-file', self._own[0],
            '--key-file', self._own[1], '--client-cert-auth',
            '--trusted-ca-file', self.certificates.ca], self.port)]


_ENGINES = {'redis': TlsRedis, 'clients': TlsRedisOfClients,
            'another': TlsRedisOfAnotherHost, 'sentinel': TlsSentinel,
            'etcd': TlsEtcd}


@contextlib.contextmanager
def open_engine(name):
    """A running engine, ended afterwards with all its processes."""
    kind = _ENGINES[name]
    for binary in kind.binaries:
        if not shutil.which(binary):
            pytest.skip(f'{binary} is missing: apt-get install -y '
                        f'{kind.package}')
    folder = tempfile.mkdtemp(prefix='zt-tls-')
    try:
        engine = kind(folder)
        try:
            engine.start()
            yield engine
        finally:
            engine.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
