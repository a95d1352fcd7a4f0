# SPDX-License-Identifier: Apache-2.0
"""Why nobody could be reached, in words for operators."""

import collections
import os
import stat
import threading
import time

from zmq_threaded import logs
from zmq_threaded import texts
from zmq_threaded import wire

LOG = logs.get(__name__)

_NAMED, _LONGEST = 3, 400
# A destination is told of once in a while, and only some of them at a time.
_TELL_EVERY, _BURST, _BURST_EVERY, _KEPT = 60.0, 5, 10.0, 1000

_REFUSALS = {
    wire.GONE: 'its receiver does not have it: it has ended, or uses another '
               'rpc_zmq_ipc_dir than the receiver',
    wire.STOPPING: 'it is stopping',
    wire.BUSY: 'it is busy and takes no more for now '
               '(rpc_zmq_topic_backlog)',
    wire.UNREACHABLE: 'its receiver is ending, or gets no sign of life of it'}


def refusal(reason, text=''):
    """What a NACK means.

    :param reason: of wire.nack_reason()
    :param text: likewise; of one that is busy it tells with what
    """
    if reason == wire.BUSY and text:
        return texts.line(text)
    return _REFUSALS.get(reason) or (
        f'it refused a message ({wire.REASON_NAMES.get(reason, reason)})')


def unreachable(instance, why):
    """:param why: what was tried, and what came of it"""
    return f'the receiver of its node: {why}' if instance.receiver else why


def unusable(endpoints, is_tcp_tried=False):
    """Why the IPC endpoints of a record are of no use to this process.

    :param is_tcp_tried: another way was tried; then a file that is not there
        is of another machine
    :returns: text, perhaps ''
    """
    found = [_unusable(endpoint[6:], is_tcp_tried) for endpoint in endpoints
             if endpoint.startswith('ipc://')]
    return '; '.join(filter(None, found))


def _unusable(path, is_tcp_tried):
    try:
        status = os.stat(path)
    except PermissionError:
        return (f'{path}: user {os.geteuid()} may not enter its directory; '
                'give both services a directory of a common group '
                '(rpc_zmq_ipc_dir)')
    except (OSError, ValueError) as error:
        return '' if is_tcp_tried else (
            f'{path}: {getattr(error, "strerror", None) or error}; its '
            'service has ended, or belongs to another machine, container or '
            'rpc_zmq_ipc_dir and has no TCP endpoint')
    if os.access(path, os.W_OK):
        return ''
    return (f'{path}: no permission for user {os.geteuid()}; it belongs to '
            f'user {status.st_uid}, group {status.st_gid}, mode '
            f'{stat.S_IMODE(status.st_mode):o}')


def explain(listed, looked_up_at, trouble):
    """Why nobody of a topic can be reached.

    :param listed: list of (Instance, why it is passed over, or '')
    :param looked_up_at: monotonic seconds of the last look-up, or -inf
    :param trouble: (monotonic seconds, text) since when and why the registry
        does not answer, or None
    :returns: text of bounded length
    """
    said = []
    if trouble:
        since, problem = trouble
        said.append('the registry has not answered for '
                    f'{time.monotonic() - since:.0f} s ({_short(problem)})')
    elif looked_up_at < 0:
        said.append('the registry has not answered yet')
    if listed:
        said.append(_of_instances(listed))
    else:
        said.append('nobody was known before' if said
                    else 'nobody is registered under it')
    return '; '.join(said)


def _of_instances(listed):
    # Those of which something is known first.
    listed = sorted(listed, key=lambda each: not each[1])
    lines = [f'{instance}: {_short(why) or "nothing is known against it"}'
             for instance, why in listed[:_NAMED]]
    if len(listed) > _NAMED:
        lines.append(f'and {len(listed) - _NAMED} more')
    return f'{len(listed)} registered: ' + '; '.join(lines)


def _short(text):
    return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'


class Warnings:
    """Tells the log of destinations that cannot be reached.

    Thread: any. The lock is reentrant for the sake of signal handlers.
    """

    def __init__(self):
        self._lock = threading.RLock()
        self._told = collections.OrderedDict()
        self._burst_until, self._burst, self._others = 0.0, 0, 0

    def tell(self, instance, why):
        with self._lock:
            if not self._may_tell(instance.endpoints, time.monotonic()):
                return
            others, self._others = self._others, 0
        more = f' ({others} more destinations since)' if others else ''
        LOG.warning('%s cannot be reached, still trying: %s%s', instance,
                    _short(why), more)

    def _may_tell(self, key, now):
        if now < self._told.get(key, 0.0):
            return False
        self._told[key] = now + _TELL_EVERY
        self._told.move_to_end(key)
        while len(self._told) > _KEPT:
            self._told.popitem(last=False)
        if now > self._burst_until:
            self._burst_until, self._burst = now + _BURST_EVERY, 0
        self._burst += 1
        self._others += self._burst > _BURST
        return self._burst <= _BURST
