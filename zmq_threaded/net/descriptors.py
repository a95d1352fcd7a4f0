# SPDX-License-Identifier: Apache-2.0
"""File descriptors: how many this process may have, and how many are left.

libzmq aborts the process when it has none in the wrong place: for the first
socket of a context, and for a client that connects over IPC. So whoever makes
sockets asks here first.
"""

import errno
import os
import re
import resource

from zmq_threaded import logs

# Deferred, for descriptors are counted while accept_gates.py holds its lock.
LOG = logs.get(__name__, is_deferred=True)

SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_OPEN = '/proc/self/fd'
_SLOTS, _STATUS_SIZE = re.compile(rb'\nFDSize:\s*(\d+)\n'), 4096
# More than anybody here asks for at once.
_FAR_FROM_THE_LIMIT = 8192
# Of a new connection: its socket's event, its own, and one for a probe.
FOR_A_CONNECTION = 3
# A service with less than that asks its clients to be sparing with
# connections.
_PLENTY = 1024
_SMALLEST_MARGIN, _LARGEST_MARGIN = 16, 1024


class Short(Exception):
    """There is no descriptor, memory or ZeroMQ socket left; the text says
    which, and what to do.
    """


def is_shortage(error):
    """Whether an OSError or ZMQError is of a want that may pass."""
    return error.errno in SHORTAGES


def short(error):
    """The Short that tells of an OSError or ZMQError."""
    if error.errno == errno.EMFILE and left() > FOR_A_CONNECTION:
        return Short('out of ZeroMQ sockets: too many are in use at once')
    if error.errno == errno.EMFILE:
        return Short(_advice())
    return Short(f'out of resources: {error}')


def complaint():
    """What to say of a process that has no descriptors left; '' of others."""
    return _advice() if left() < FOR_A_CONNECTION else ''


def limit():
    """How many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_limit():
    """Raise the soft limit to the hard one, as Go and the JVM do. It may have
    been lowered since the last time.

    :returns: the limit
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = _largest() if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= highest:
        return soft if soft != resource.RLIM_INFINITY else highest
    was_short = soft - _used() < margin(soft)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    except (ValueError, OSError) as error:
        LOG.debug('The limit of %d descriptors stays: %s', soft, error)
        return soft
    (LOG.info if was_short else LOG.debug)(
        'The limit of open files (RLIMIT_NOFILE) was raised from %d to the '
        'hard one, %d', soft, highest)
    return highest


def are_few():
    """Whether a service should ask its clients to be sparing."""
    return raise_limit() < _PLENTY


def left():
    """How many descriptors may still be opened, or a few thousand less if
    they are many. Needs none itself.
    """
    return max(0, raise_limit() - _used())


def margin(of_limit):
    """How many are kept for those who are connected already."""
    return min(_LARGEST_MARGIN, max(_SMALLEST_MARGIN, of_limit // 10))


def demand(count):
    """See that so many are left.

    :raises: Short
    """
    # Not by opening them: meanwhile libzmq could need one.
    if left() < count:
        raise Short(_advice())


def warn_if_few(needed):
    """:param needed: how many a process of this configuration may need"""
    highest = raise_limit()
    if highest < needed:
        LOG.warning(
            'This process may open %d files (RLIMIT_NOFILE); with its '
            'configuration it may need %d or more (see docs/promises.md): '
            'raise LimitNOFILE of its unit, or ulimit -Hn', highest, needed)


def _advice():
    return (f'out of file descriptors (limit {limit()}, RLIMIT_NOFILE): '
            'raise LimitNOFILE of the unit of this process, or ulimit -Hn')


def _largest():
    try:
        with open('/proc/sys/fs/nr_open') as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1 << 20


def _used():
    """How many descriptors are open; where it would take long to count them
    and they are far from the limit, how many there are at the most.
    """
    try:
        return _counted_by_the_kernel() or _counted()
    except OSError as error:
        # To list the descriptors takes one.
        return limit() if error.errno in SHORTAGES else _highest()


def _counted_by_the_kernel():
    """0 before Linux 6.2."""
    return os.stat(_OPEN).st_size


def _counted():
    slots = _slots()
    return (slots if slots and limit() - slots >= _FAR_FROM_THE_LIMIT
            else len(os.listdir(_OPEN)))


def _slots():
    """For how many descriptors the kernel has made room; a power of two."""
    with open('/proc/self/status', 'rb', buffering=0) as status:
        found = _SLOTS.search(status.read(_STATUS_SIZE))
    return int(found[1]) if found else 0


def _highest():
    """What is the least that may be open, without /proc."""
    try:
        spare = os.open('/', os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return limit()
    os.close(spare)
    return spare
