# SPDX-License-Identifier: Apache-2.0
"""Whether the files that a URL of the registry names for TLS can be used."""

import os
import ssl
from collections.abc import Callable

from zmq_threaded.registry import tls_options


def check(url: str) -> None:
    """Refuse a URL of tooz whose files of TLS cannot be read.

    :raises: ValueError, which names the file and says what is wrong with it
    """
    ca, certificate, key = tls_options.files(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca:
        where = {'capath' if os.path.isdir(ca) else 'cafile': ca}
        _read('the certificate of the CA', ca,
              lambda: context.load_verify_locations(**where))
    if certificate:
        _read('the certificate of this client', certificate,
              lambda: open(certificate).close())
        _read('the key of this client', key or certificate,
              # Without a password for the key, OpenSSL would ask a terminal.
              lambda: context.load_cert_chain(certificate, key or None,
                                              password=''))


def _read(what: str, path: str, read: Callable[[], object]) -> None:
    try:
        read()
    except OSError as error:        # ssl.SSLError is one
        raise ValueError(f'{what} for TLS to the registry, {path}, cannot be '
                         f'used: {error.strerror or error}') from None
