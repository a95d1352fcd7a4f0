# SPDX-License-Identifier: Apache-2.0
"""Keys of CURVE in the certificate files of pyzmq (zmq.auth).

A pair is two files: NAME.key has the public key, NAME.key_secret has both.
"""

import base64
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import pwd
import stat

import zmq.auth
from zmq.utils import z85

PUBLIC_SUFFIX, SECRET_SUFFIX = '.key', '.key_secret'
# Others may do nothing with a secret file, and its group may only read it.
_FORBIDDEN = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
# Bytes of a key in the text of Z85 (ZeroMQ RFC 32), and without it.
_TEXT_LENGTH, _LENGTH = 40, 32


class BadKey(ValueError):
    """A file has no key that can be used; the text names the file."""


class NoKey(BadKey):
    """The content of a file is no key, or cannot be read: somebody may be
    writing the file.
    """


@dataclasses.dataclass(frozen=True)
class Pair:
    """The two keys of one node or service, as Z85 text of 40 bytes.

    Thread: any.
    """

    public: bytes
    secret: bytes = dataclasses.field(repr=False)


def read_pair(path: str) -> Pair:
    """The pair in a secret file.

    :raises: BadKey, also when more users than its owner, or a group that was
        given to it on purpose, may read the file
    """
    public, secret = _load(path)
    if secret is None:
        raise BadKey(f'{path}: the file has no secret key; name the file '
                     f'that ends with {SECRET_SUFFIX}')
    # Afterwards: a file without a secret may be open to everybody.
    _check_mode(path)
    if not _belongs(secret, public):
        raise BadKey(f'{path}: its secret key does not belong to its public '
                     'key; copy the file again')
    return Pair(public, secret)


def read_public(path: str) -> bytes:
    """The public key in a file of either kind.

    :raises: BadKey, NoKey
    """
    return _load(path)[0]


def file_stamp(path: str) -> tuple[int, ...]:
    """What is different once a file was written or exchanged; no number if
    there is no file.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size,
            status.st_mtime_ns, status.st_ctime_ns)


def create(directory: str, name: str) -> tuple[str, str]:
    """Make a new pair.

    :returns: the paths of the file of the public key, and of the secret one
    :raises: BadKey when a file is there already, OSError
    """
    public, secret = (str(pathlib.Path(directory, name + suffix))
                      for suffix in (PUBLIC_SUFFIX, SECRET_SUFFIX))
    for path in (public, secret):
        if os.path.lexists(path):
            raise BadKey(f'{path}: the file is there already; a new pair '
                         'needs another name')
    # From the start: between creation and chmod others could read the secret.
    before = os.umask(0o077)
    try:
        zmq.auth.create_certificates(directory, name)
        os.chmod(public, 0o644)
    except BaseException:
        # Of a full disk, say: half a pair would be in the way of the next
        # attempt.
        for path in (public, secret):
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise
    finally:
        os.umask(before)
    return public, secret


def fingerprint(public: bytes) -> str:
    """The short text by which people compare public keys, as ssh has it."""
    digest = hashlib.sha256(z85.decode(public)).digest()
    return 'SHA256:' + base64.b64encode(digest).decode().rstrip('=')


def text_of(raw: bytes) -> bytes:
    """The Z85 text of a key of 32 bytes."""
    return z85.encode(raw)


def is_public_key(text: bytes) -> bool:
    """Whether a text from outside can be a public key."""
    return _is_key(text)


def _check_mode(path):
    try:
        status = os.stat(path)
    except OSError as error:
        raise BadKey(f'{path}: {error.strerror}') from None
    if status.st_mode & _FORBIDDEN:
        raise BadKey(
            f'{path}: other users than its owner may read or change this '
            f'secret key (mode {stat.S_IMODE(status.st_mode):04o}). Do '
            f'"chmod 600 {path}", and think of making a new pair')
    if status.st_mode & stat.S_IRGRP and status.st_gid == _own_group(status):
        raise BadKey(
            f'{path}: the group of its owner may read this secret key. Do '
            f'"chmod 600 {path}"; if several users need it, give it a group '
            'made for them ("chgrp")')


def _own_group(status):
    try:
        return pwd.getpwuid(status.st_uid).pw_gid
    except KeyError:
        return status.st_gid


def _load(path):
    try:
        _check_kind(path)
        public, secret = zmq.auth.load_certificate(path)
    except BadKey:
        raise
    except FileNotFoundError as error:
        raise BadKey(f'{path}: {error.strerror}') from None
    except Exception as error:
        # pyzmq raises what it likes, IndexError for a line without "=".
        why = getattr(error, 'strerror', None) or 'it has no public key'
        raise NoKey(f'{path}: the file cannot be used: {why}') from None
    if not _is_key(public):
        raise NoKey(f'{path}: its public key is not {_TEXT_LENGTH} '
                    'characters of Z85')
    return public, secret


def _check_kind(path):
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise BadKey(f'{path}: it is a directory. Name a file with a key')
    if not stat.S_ISREG(mode):
        # To open a pipe would wait for ever.
        raise BadKey(f'{path}: it is no regular file. Name a file with a key')


def _belongs(secret, public):
    try:
        return _is_key(secret) and zmq.curve_public(secret) == public
    except Exception:
        return False


def _is_key(text):
    try:
        return (len(text) == _TEXT_LENGTH
                and len(z85.decode(text)) == _LENGTH)
    except Exception:
        # z85 raises what it likes for a text that is none.
        return False
