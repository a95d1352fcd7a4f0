# SPDX-License-Identifier: Apache-2.0
"""Whether the name under which a node is published leads to it."""

import errno
import ipaddress
import socket
import time

from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded.net import addresses
from zmq_threaded.net import resolver

LOG = logs.get(__name__)

_EVERY = 60.0
_REMEDY = ('Clients on other hosts cannot reach the services of this node '
           'then. Set rpc_zmq_host to a name or an address of this machine '
           'that the other hosts know, or mend the name in DNS or /etc/hosts. '
           '(This is as it should be if the name belongs to a NAT or a load '
           'balancer before this machine.)')


class Published:
    """Tells the log when rpc_zmq_host leads to another machine, or nowhere.

    :param is_receiver: this is the process of the receiver
    :ivar problem: what is wrong with the name now; '' if nothing

    Thread: any, one at a time.
    """

    def __init__(self, settings, is_receiver=False):
        self._settings = settings
        # Whether other hosts are told of a TCP port.
        self._is_published = (is_receiver or settings.topology == 'receiver'
                              or settings.transport == 'tcp')
        self._next = 0.0
        self.problem = ''

    def check(self):
        """To be called now and then; waits for nothing."""
        now = time.monotonic()
        if self._is_published and now >= self._next:
            self._next = now + _EVERY
            self._look()

    def _look(self):
        try:
            found = addresses.of_process().look_up(self._settings.host,
                                                self._look)
        except resolver.Unresolved as error:
            return self._tell(str(error))
        if found is not None:
            self._tell(problem(self._settings, found))

    def _tell(self, found):
        if found == self.problem:
            return
        self.problem = found
        if found:
            LOG.warning('rpc_zmq_host is %s, but %s. %s',
                        self._settings.host, found, _REMEDY)
        else:
            LOG.info('rpc_zmq_host %s leads to this machine now',
                     self._settings.host)


def problem(settings, found):
    """What is wrong with the addresses of rpc_zmq_host; '' if nothing."""
    led = f'that leads to {", ".join(found)}'
    if not any(_is_ours(address) for address in found):
        return f'{led}, which is no address of this machine'
    if (settings.matchmaker != options.EMBEDDED
            and _is_loopback_everywhere(settings.host)):
        return f'{led}, which is another machine on each host'
    bound = settings.bind_address
    if addresses.is_number(bound) and not _is_reached(bound, found):
        return f'{led}, and rpc_zmq_bind_address binds {bound} alone'
    return ''


def _is_ours(address):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT,
                                   errno.EINVAL, errno.ENODEV)
    return True


def _is_loopback_everywhere(host):
    # Not a name that has a line with 127.0.1.1 in the /etc/hosts of its own
    # machine, as on Debian: the other hosts may know better.
    return host == 'localhost' or (
        addresses.is_number(host) and ipaddress.ip_address(host).is_loopback)


def _is_reached(bound, found):
    if bound == '::':       # takes IPv4 too
        return True
    if bound == '0.0.0.0':
        return any(':' not in address for address in found)
    return ipaddress.ip_address(bound) in map(ipaddress.ip_address, found)
