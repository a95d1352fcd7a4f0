# SPDX-License-Identifier: Apache-2.0
"""A service as oslo.messaging's server sees it."""

from oslo_messaging._drivers import base

from zmq_threaded import errors
from zmq_threaded.net import descriptors
from zmq_threaded.service import guard


class ZmqListener(base.Listener):
    """The Listener of one service; the server's executor does the work.

    :param service: service.service.Service, bound
    :param stopped: called with the service when it has stopped
    :param forget: called with the service when it is cleaned up
    :param executor: the name of the one that runs the endpoints

    Thread: any.
    """

    def __init__(self, service, stopped, forget, batch_size,
                 batch_timeout, executor):
        super().__init__(batch_size, batch_timeout)
        self._service = service
        self._stopped = stopped
        self._forget = forget
        self._executor = executor

    def start(self, on_incoming_callback):
        super().start(on_incoming_callback)
        guard.equip(on_incoming_callback, self._executor)
        try:
            self._service.start(guard.guarded(on_incoming_callback,
                                              self._service.work),
                                guard.workers(on_incoming_callback),
                                guard.passes_on(on_incoming_callback))
        except descriptors.Short as error:
            raise errors.OutOfResources(f'Cannot listen: {error}') from None

    def tell_other_half(self, other_half):
        """Have the facts say whether the other half of a bridge listens.

        :param other_half: returns 1 if it does, or 0
        """
        self._service.work.other_half = other_half

    def stop(self):
        """When this returns, the callback is not called again."""
        self._service.stop()
        super().stop()
        self._stopped(self._service)

    def cleanup(self):
        self._service.cleanup()
        self._forget(self._service)
