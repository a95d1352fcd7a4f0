# SPDX-License-Identifier: Apache-2.0
"""A driver that holds two: it listens on both, and sends over one."""

import os

from oslo_messaging._drivers import base

from zmq_threaded import driver as drivers
from zmq_threaded import logs
from zmq_threaded import threads
from zmq_threaded import topic as topics
from zmq_threaded.bridge import listener as listeners
from zmq_threaded.bridge import other as others
from zmq_threaded.bridge import other_listener
from zmq_threaded.bridge import reminder
from zmq_threaded.net import descriptors

LOG = logs.get(__name__)


class BridgeDriver(base.BaseDriver):
    """ZmqDriver and another driver as one.

    :param zmq: driver.ZmqDriver
    :param other: bridge.other.Other
    :param sends_over_other: whether messages go over the other one
    :ivar zmq: the ZmqDriver

    Thread: any.
    """

    def __init__(self, zmq: drivers.ZmqDriver, other: others.Other,
                 sends_over_other: bool) -> None:
        super().__init__(zmq.conf, zmq._url, zmq._default_exchange,
                         zmq._allowed_remote_exmods)
        self.zmq = zmq
        self._other = other
        self._sends_over_other = sends_over_other
        self._reminder = reminder.Reminder(other)
        # Processes that can be seen on zmq, though they do not send over it.
        self._shown_in: set[int] = set()
        LOG.info('zmq: bridge to %s, messages are sent over %s', other,
                 other if sends_over_other else 'zmq')

    # Sending

    def send(self, target, ctxt, message, wait_for_reply=None, timeout=None,
             call_monitor_timeout=None, retry=None, transport_options=None):
        """Send over the driver that is named; a reply comes back over it."""
        return self._sender(topics.rpc(
            self._exchange(target), target.topic,
            None if target.fanout else target.server)).send(
            target, ctxt, message, wait_for_reply=wait_for_reply,
            timeout=timeout, call_monitor_timeout=call_monitor_timeout,
            retry=retry, transport_options=transport_options)

    def send_notification(self, target, ctxt, message, version, retry):
        """Send over the driver that is named."""
        self._sender(topics.notifications(
            self._exchange(target), target.topic)).send_notification(
                target, ctxt, message, version, retry=retry)

    def _sender(self, topic):
        """The driver over which a message goes to a topic."""
        if not self._sends_over_other:
            self._reminder.sending(topic, self.zmq.runtime.registry)
            return self.zmq
        if os.getpid() not in self._shown_in:
            self._show()
        runtime = self.zmq._runtimes.latest()
        if runtime is not None:
            # Or status would not know that somebody may listen there, and
            # only on the other side.
            runtime.counters.sent.of(topic)
        return self._other.current()

    def _show(self):
        """Let the status of the cloud have this process."""
        self._shown_in.add(os.getpid())
        try:
            self.zmq.runtime.registry.start()
        except Exception as error:
            LOG.warning('zmq: this process could not send over zmq, and is '
                        'not seen there: %s', error)

    def _exchange(self, target):
        return target.exchange or self._default_exchange or ''

    def require_features(self, requeue=False):
        """What both of them have."""
        self.zmq.require_features(requeue=requeue)
        self._other.current().require_features(requeue=requeue)

    # Listening

    def listen(self, target, batch_size, batch_timeout):
        return self._listen('listen', f'topic {target.topic}', target,
                            batch_size, batch_timeout)

    def listen_for_notifications(self, targets_and_priorities, pool,
                                 batch_size, batch_timeout):
        names = {target.topic for target, _ in targets_and_priorities}
        return self._listen('listen_for_notifications',
                            f'notifications of {", ".join(sorted(names))}',
                            targets_and_priorities, pool, batch_size,
                            batch_timeout)

    def _listen(self, method, what, *arguments):
        *_, batch_size, batch_timeout = arguments
        return listeners.BridgeListener(
            getattr(self.zmq, method)(*arguments),
            other_listener.OtherListener(
                what, self._other, lambda: getattr(
                    self._other.current(), method)(*arguments)),
            batch_size, batch_timeout)

    # What this process has open

    def cleanup(self):
        """Close both. Who has waited in vain for the listeners of the other
        one does not wait again.
        """
        try:
            closing = threads.started(self._clean_up_other,
                                      other_listener.THREAD)
        except descriptors.Short:
            closing = None
        threads.do_all([self.zmq.cleanup,
                        self._clean_up_other if closing is None
                        else lambda: self._other.patience.wait(
                            lambda: not closing.is_alive())])

    def _clean_up_other(self):
        try:
            self._other.cleanup()
        except Exception as error:
            LOG.warning('zmq: the bridge to %s was not closed as it should '
                        'be: %s', self._other, error)

    def counters(self):
        """As those of ZmqDriver: what goes over zmq."""
        return self.zmq.counters()

    def unacknowledged(self, timeout=1.0):
        """As that of ZmqDriver: what goes over zmq."""
        return self.zmq.unacknowledged(timeout)
