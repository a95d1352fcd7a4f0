# SPDX-License-Identifier: Apache-2.0
"""A sender that writes down which messages were accepted, each as soon as
cast() or notify() has returned, so that a kill -9 loses nothing of it.

Arguments: URL, 'cast' or 'notify', what its messages begin with, file, seconds
between two messages. It ends when its stdin does.
"""

import itertools
import os
import sys
import threading
import time

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402


def sender(url, kind):
    if kind == 'cast':
        transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
        client = oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(topic='topic'))
        return transport, lambda text: client.cast({}, 'note', value=text)
    transport = oslo_messaging.get_notification_transport(cfg.CONF, url)
    notifier = oslo_messaging.Notifier(
        transport, 'publisher', driver='messagingv2', topics=['notes'],
        retry=-1)
    return transport, lambda text: notifier._notify({}, 'event', text, 'INFO')


def main(url, kind, prefix, path, pause):
    cfg.CONF([], project='zmq_threaded_tests')
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    transport, send = sender(url, kind)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()),
                     daemon=True).start()
    print('ready', flush=True)
    for number in itertools.count():
        if ended.is_set():
            break
        try:
            send(f'{prefix}-{number}')
        except oslo_messaging.MessageDeliveryFailure as error:
            os.write(2, f'{prefix}-{number}: {error}\n'.encode())
            continue
        os.write(file, f'{prefix}-{number}\n'.encode())
        time.sleep(float(pause))
    transport.cleanup()


main(*sys.argv[1:])
