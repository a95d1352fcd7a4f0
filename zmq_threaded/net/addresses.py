# SPDX-License-Identifier: Apache-2.0
"""Where the endpoints of records lead: addresses in numbers."""

import collections
import functools
import ipaddress
import os
import threading

from zmq_threaded import endpoints
from zmq_threaded.net import resolver

_KEPT = 8192


def of_process():
    """The Addresses of this process. A forked child has its own."""
    pid = os.getpid()
    return _by_pid.get(pid) or _by_pid.setdefault(pid, Addresses())


_by_pid: dict[int, 'Addresses'] = {}


class Addresses:
    """Resolves endpoints, and remembers which of several addresses of a name
    answered last.

    :param resolve: see names.Names

    Thread: any.
    """

    def __init__(self, resolve=None):
        self._resolver = resolver.Resolver(resolve)
        self._lock = threading.RLock()
        self._worked = collections.OrderedDict()

    def look(self, endpoint, done=None):
        """The addresses of a TCP endpoint; waits for nothing.

        :param done: see Names.look()
        :returns: tuple of (host, port) in numbers, the best first; None while
            its name is being resolved
        :raises: endpoints.BadEndpoint, resolver.Unresolved
        """
        host, port, is_number = split(endpoint)
        if is_number:
            return ((host, port),)
        found = self._resolver.look(host, done)
        return found and self._best_first(endpoint, found, port)

    def wait(self, endpoint, deadline):
        """As look(), but wait for a name until a deadline.

        :param deadline: monotonic seconds
        """
        host, port, is_number = split(endpoint)
        if is_number:
            return ((host, port),)
        return self._best_first(endpoint, self._resolver.wait(host, deadline),
                                port)

    def look_up(self, host, done=None):
        """The addresses of a host, which may be one itself; see
        Names.look().
        """
        return (host,) if is_number(host) else self._resolver.look(host, done)

    def _best_first(self, endpoint, found, port):
        best = self._worked.get(endpoint)
        return tuple(sorted(((host, port) for host in found),
                            key=lambda address: address != best))

    def worked(self, endpoint, address):
        """An address of an endpoint answered, where others had not."""
        if not split(endpoint)[2]:
            with self._lock:
                self._worked[endpoint] = address
                self._worked.move_to_end(endpoint)
                while len(self._worked) > _KEPT:
                    self._worked.popitem(last=False)

    def failed(self, endpoint):
        """None of the addresses answered: the name may lead elsewhere now."""
        host, _, is_number = split(endpoint)
        if not is_number:
            self._resolver.doubt(host)


@functools.lru_cache(maxsize=8192)
def split(endpoint):
    """:returns: (host, port, whether the host is a number)
    :raises: endpoints.BadEndpoint
    """
    scheme, _, where = endpoint.partition('://')
    host, _, port = where.rpartition(':')
    host = host.removeprefix('[').removesuffix(']')
    if (scheme != 'tcp' or not host or not (port.isascii() and port.isdigit())
            or not 0 < int(port[:6]) < 65536):
        raise endpoints.BadEndpoint(f'{endpoint!r:.200} is no endpoint of the '
                                  'form tcp://host:port')
    return host, int(port), is_number(host)


def is_number(host):
    """Whether a host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def as_endpoint(address):
    """What ZeroMQ connects to.

    :param address: (host, port) in numbers
    """
    host, port = address
    return f'tcp://[{host}]:{port}' if ':' in host else f'tcp://{host}:{port}'


def describe(endpoint, address):
    """Both the address that was tried and the name that led to it."""
    host, _, is_a_number = split(endpoint)
    number = as_endpoint(address)
    return number if is_a_number else f'{number} ({host:.200})'


def problems(endpoint, tried):
    """Why no address of an endpoint answered, as text.

    :param tried: happy_eyeballs.HappyEyeballs
    """
    return '; '.join(f'{describe(endpoint, address)}: {problem}'
                     for address, problem in tried.problems.items())


def mute(endpoint, address):
    """What is wrong with an address that takes connections, as text."""
    return (f'{describe(endpoint, address)}: takes connections, but does not '
            'answer: its process is paused or overloaded, or something else '
            'listens there')
