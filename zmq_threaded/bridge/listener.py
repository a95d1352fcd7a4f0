# SPDX-License-Identifier: Apache-2.0
"""A listener that holds two."""

from oslo_messaging._drivers import base

from zmq_threaded import errors
from zmq_threaded import threads
from zmq_threaded.bridge import other_listener
from zmq_threaded.net import descriptors
from zmq_threaded.service import listener


class BridgeListener(base.Listener):
    """The listener of zmq and that of the other driver as one.

    Each message is answered, acknowledged or requeued where it came from.

    :param zmq: service.listener.ZmqListener
    :param other: bridge.other_listener.OtherListener
    :ivar zmq: the ZmqListener

    Thread: any.
    """

    def __init__(self, zmq: listener.ZmqListener,
                 other: other_listener.OtherListener, batch_size: int,
                 batch_timeout: float | None) -> None:
        super().__init__(batch_size, batch_timeout)
        self.zmq = zmq
        self._other = other
        zmq.tell_other_half(lambda: int(other.listens))

    def start(self, on_incoming_callback):
        super().start(on_incoming_callback)
        # It may replace the server's executor, to which the other one is then
        # going to submit.
        self.zmq.start(on_incoming_callback)
        try:
            self._other.start(on_incoming_callback)
        except descriptors.Short as error:
            self.zmq.stop()
            raise errors.OutOfResources(f'Cannot listen: {error}') from None

    def stop(self):
        """When this returns, the callback is not called again."""
        self._other.begin_stop()
        threads.do_all([self.zmq.stop, self._other.wait_until_stopped,
                        super().stop])

    def cleanup(self):
        self._other.begin_cleanup()
        threads.do_all([self.zmq.cleanup, self._other.wait_until_closed])
