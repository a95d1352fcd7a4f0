# SPDX-License-Identifier: Apache-2.0
"""Tells systemd how far the receiver is (sd_notify(3)).

systemd gives a unit of Type=notify the address of a datagram socket in the
variable NOTIFY_SOCKET; without it nobody wants to know.
"""

import os
import socket

from zmq_threaded import logs

LOG = logs.get(__name__)

READY, STOPPING = 'READY=1', 'STOPPING=1'


def tell(state: str, status: str = '') -> None:
    """Tell systemd; what fails is only noted in the log.

    :param state: READY or STOPPING
    :param status: what `systemctl status` shows, one line
    """
    address = os.environ.get('NOTIFY_SOCKET')
    if not address:
        return
    if address.startswith('@'):
        address = '\0' + address[1:]
    lines = [state, *([f'STATUS={status}'] if status else [])]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd:
            to_systemd.connect(address)
            to_systemd.sendall('\n'.join(lines).encode())
    except OSError as error:
        LOG.warning('systemd was not told %s: %s', state, error)
