# SPDX-License-Identifier: Apache-2.0
"""A process that may start only so many more threads at first, and does one
thing; then it may start more, and does the same again.

Arguments: transport URL, what it does, number of threads. It prints a line
with the kind of the error, or 'done', for each of the two.
"""

import logging
import os
import resource
import sys
import time

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402


class _Endpoint:
    def echo(self, ctxt, value):
        return value


def _limit_to(more):
    running = len(os.listdir('/proc/self/task'))
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC,
                       (hard if more is None else running + more, hard))


def _actions(transport):
    target = oslo_messaging.Target(topic='topic')
    client = oslo_messaging.get_rpc_client(transport, target, timeout=10)
    server = oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(topic='other', server='server'),
        [_Endpoint()], executor='threading')
    notifier = oslo_messaging.Notifier(
        transport, driver='messagingv2', topics=['events'], publisher_id='me')
    return {
        'call': lambda: client.call({}, 'echo', value=1),
        'monitored': lambda: client.prepare(
            call_monitor_timeout=5).call({}, 'echo', value=1),
        'cast': lambda: client.cast({}, 'note', value=1),
        'fanout': lambda: client.prepare(fanout=True).cast({}, 'note',
                                                           value=1),
        'notify': lambda: notifier.info({}, 'event', {}),
        'listen': server.start}


def _outcome(action):
    try:
        action()
    except oslo_messaging.MessagingException as error:
        return f'{type(error).__name__}: {error}'
    except Exception as error:
        return f'BAD {type(error).__name__}: {error}'
    return 'done'


def main(url, what, more):
    logging.basicConfig(stream=sys.stderr)
    cfg.CONF([], project='few')
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    action = _actions(transport)[what]
    _limit_to(int(more))
    print('first', _outcome(action), flush=True)
    _limit_to(None)
    print('second', _outcome(action), flush=True)
    time.sleep(0.1)
    transport.cleanup()
    print('ends', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
