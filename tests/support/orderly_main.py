# SPDX-License-Identifier: Apache-2.0
"""A service as OpenStack's are: oslo.service on threads, or cotyledon.

Each worker casts numbered messages to the topic 'peer', and writes the token
of each cast that returned to a file: what it must not lose.

Argument: JSON with
    url, path      of the driver; of the file
    launcher       'launch', 'no_fork' or 'cotyledon'
    workers, start_method
    transport      'early' is made before the fork, and so is pickled by spawn
    listens        whether it has a server
    count          casts to send; null for no end
    stops          whether stop() ends the sending thread
    fails          whether start() raises, after its casts
"""

import json
import os
import sys
import threading
import time

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_service import service  # noqa: E402

_PAUSE = 0.001


class Worker(service.ServiceBase):
    """Casts, and serves if it is to."""

    def __init__(self, settings):
        self._settings = settings
        self._transport = (self._new_transport()
                           if settings['transport'] == 'early' else None)
        self._server = self._thread = self._ended = None

    def _new_transport(self):
        return oslo_messaging.get_rpc_transport(cfg.CONF,
                                                self._settings['url'])

    def start(self):
        self._ended = threading.Event()
        self._transport = self._transport or self._new_transport()
        if self._settings['listens']:
            self._server = oslo_messaging.get_rpc_server(
                self._transport, oslo_messaging.Target(
                    topic='service', server=str(os.getpid())), [object()])
            self._server.start()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        if self._settings['fails']:
            self._thread.join()
            raise ValueError('on purpose')

    def _work(self):
        client = oslo_messaging.get_rpc_client(
            self._transport, oslo_messaging.Target(topic='peer'))
        file = os.open(self._settings['path'],
                       os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        number, count = 0, self._settings['count']
        while not self._ended.is_set() and number != count:
            token = f'{os.getpid()}-{number}'
            try:
                client.cast({}, 'note', value=token)
            except oslo_messaging.MessageDeliveryFailure:
                time.sleep(_PAUSE)
                continue
            os.write(file, f'{token}\n'.encode())
            number += 1
            time.sleep(_PAUSE)

    def stop(self):
        if self._settings['stops']:
            self._ended.set()
            self._thread.join(20)
        if self._server is not None:
            self._server.stop()

    def wait(self):
        if self._settings['launcher'] == 'no_fork':
            threading.Event().wait()

    def reset(self):
        pass


def _run_cotyledon(settings):
    import cotyledon

    class Service(cotyledon.Service):
        def __init__(self, worker_id):
            super().__init__(worker_id)
            self._worker = Worker(settings)

        def run(self):
            self._worker.start()

        def terminate(self):
            self._worker.stop()

    manager = cotyledon.ServiceManager()
    manager.add(Service, settings['workers'])
    manager.run()


def main(settings):
    cfg.CONF([], project='zmq_threaded_tests')
    if settings['launcher'] == 'cotyledon':
        return _run_cotyledon(settings)
    service.launch(cfg.CONF, Worker(settings), workers=settings['workers'],
                   no_fork=settings['launcher'] == 'no_fork',
                   start_method=settings['start_method']).wait()


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
