# SPDX-License-Identifier: Apache-2.0
"""The driver: oslo.messaging's face of zmq_threaded, and nothing else."""

import sys
import time

from oslo_messaging._drivers import base

from zmq_threaded import errors
from zmq_threaded import ipc_directory
from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded import payload
from zmq_threaded import runtimes
from zmq_threaded import sizes
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import results
from zmq_threaded.client import sender
from zmq_threaded.net import binding
from zmq_threaded.registry import engines
from zmq_threaded.security import access as accesses
from zmq_threaded.service import executors
from zmq_threaded.service import listener

LOG = logs.get(__name__)


class ZmqDriver(base.BaseDriver):
    """RPC and notifications without a broker (``transport_url = zmq://``).

    Services make their drivers before they fork and use them in the
    children; so nothing is opened here before its first use, and a process
    with another pid gets a Runtime of its own.

    Thread: any.
    """

    def __init__(self, conf, url, default_exchange=None,
                 allowed_remote_exmods=None):
        _refuse_patched_threads()
        super().__init__(conf, url, default_exchange, allowed_remote_exmods)
        self._settings = _settings(conf, url)
        self._begin()

    def _begin(self):
        self._runtimes = runtimes.Runtimes(self._settings)
        self._sender = sender.Sender(self._settings, self._runtimes)

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items()
                if name not in ('_runtimes', '_sender')}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._begin()

    @property
    def settings(self):
        """What the options say: options.Settings."""
        return self._settings

    @property
    def runtime(self):
        """The Runtime of this process, opened if need be."""
        return self._parts()

    # Sending

    def send(self, target, ctxt, message, wait_for_reply=None, timeout=None,
             call_monitor_timeout=None, retry=None, transport_options=None):
        """Send a call, a cast or a fanout, as oslo.messaging asks for it.

        :raises: MessagingTimeout, MessageDeliveryFailure,
            MessageUndeliverable, and what the endpoint of a call has raised
        :returns: the result of a call
        """
        topic = topics.rpc(self._exchange(target), target.topic,
                           None if target.fanout else target.server)
        body, flags = self._encode(ctxt, message, topic)
        if transport_options and transport_options.at_least_once:
            attempts, at_least_once = 1, message
        else:
            attempts, at_least_once = _attempts(retry), None
        if not wait_for_reply:
            return self._sender.keep(
                wire.FANOUT if target.fanout else wire.CAST, topic, body,
                flags, attempts, at_least_once)
        return results.result(
            self._sender.call(topic, body, flags, timeout, attempts,
                              call_monitor_timeout, at_least_once),
            self._allowed_remote_exmods)

    def _encode(self, ctxt, message, topic):
        if not isinstance(ctxt, dict):
            ctxt = ctxt.to_dict()   # as the rabbit driver does
        body, flags = payload.dump((ctxt, message),
                                   self._settings.serialization)
        sizes.check(body, self._settings.max_message_size,
                    'A message for', topic)
        return body, flags

    def require_features(self, requeue=False):
        """All that there is: requeueing."""

    def send_notification(self, target, ctxt, message, version, retry):
        """Send a notification; MessageDeliveryFailure is raised if that
        fails.
        """
        # What the version asks for, an envelope or none, is rabbit's format;
        # the listener gets the message itself either way.
        topic = topics.notifications(self._exchange(target), target.topic)
        body, flags = self._encode(ctxt, message, topic)
        # oslo.messaging logs that one failed, and its log handler makes a
        # notification of that: which must not fail as well, and so on.
        tells_of_one = getattr(sys.exc_info()[1], 'is_of_notification', False)
        attempts = None if tells_of_one else _attempts(retry)
        try:
            self._sender.keep(wire.NOTIFY, topic, body, flags, attempts)
        except errors.MessageDeliveryFailure as error:
            error.is_of_notification = True
            raise

    # Listening

    def listen(self, target, batch_size, batch_timeout):
        exchange = self._exchange(target)
        return self._listen([topics.rpc(exchange, target.topic),
                             topics.rpc(exchange, target.topic,
                                        target.server)],
                            batch_size, batch_timeout)

    def listen_for_notifications(self, targets_and_priorities, pool,
                                 batch_size, batch_timeout):
        addresses = {}
        for target, priority in targets_and_priorities:
            exchange, name = self._exchange(target), (f'{target.topic}.'
                                                      f'{priority}')
            for topic in (topics.notifications(exchange, name),
                          topics.pool(exchange, name, pool or '')):
                addresses[topic.key] = topic
        return self._listen(list(addresses.values()), batch_size,
                            batch_timeout, pool or '')

    def _exchange(self, target):
        return target.exchange or self._default_exchange or ''

    def _listen(self, addresses, batch_size, batch_timeout, pool=''):
        try:
            # A wrong name is told before anything is opened.
            if self._settings.executor != executors.SERVER:
                executors.maker(self._settings.executor)
            parts = self._parts()
            service = parts.succession(addresses, pool, batch_size or 1,
                                       batch_timeout)
        except (errors.OutOfResources, base.TransportDriverError,
                *binding.FAILURES) as error:
            # oslo.messaging 18 reports a failure to listen as "object has no
            # attribute 'target'", its own mistake.
            LOG.error('Nobody will listen on %s: %s',
                      ', '.join(map(str, addresses)), error)
            raise _as_ours(error) from None
        return listener.ZmqListener(service, service.tell_stopped,
                                    service.tell_forgotten, batch_size,
                                    batch_timeout, self._settings.executor)

    # What this process has open

    def cleanup(self):
        """Close everything; what is not acknowledged gets rpc_cast_timeout
        before. A later use opens everything anew.
        """
        self._runtimes.close(time.monotonic() + self._settings.cast_timeout)

    def counters(self):
        """What happened so far in this process, and what there is now: a dict
        of numbers by name (docs/counters.md).
        """
        return self._parts().snapshot()

    def unacknowledged(self, timeout=1.0):
        """What has been sent and is not acknowledged yet: a dict of topic to
        {'count', 'oldest' (seconds), 'id' (of the oldest)}.

        :param timeout: seconds to wait for the thread that knows
        :raises: MessagingTimeout when it is too busy to say
        """
        return self._parts().outbox.survey(timeout)

    def _parts(self):
        """The Runtime of this process."""
        return self._runtimes.current()


def _as_ours(error):
    """What listen() raises for an error of its parts."""
    if isinstance(error, binding.BindError):
        return errors.ListenError(str(error))
    if isinstance(error, binding.FAILURES):
        # Not as a ListenError, of which oslo.messaging 18.3 makes an
        # AttributeError.
        return errors.OutOfResources(f'Cannot listen: {error}')
    return error


def _attempts(retry):
    """Look-ups that may find nobody; None for any number."""
    return None if retry is None or retry < 0 else retry + 1


def _refuse_patched_threads():
    patcher = sys.modules.get('eventlet.patcher')
    if patcher and getattr(patcher, 'is_monkey_patched',
                           lambda _: False)('thread'):
        raise errors.ConfigurationError(
            'The zmq driver works with native threads only, and eventlet has '
            'patched the threads of this process. Run the service with native '
            'threads: for nova set OS_NOVA_DISABLE_EVENTLET_PATCHING=true in '
            'its environment; a service of your own calls '
            'oslo_service.backend.init_backend(BackendType.THREADING) first. '
            'Otherwise use another transport.')


def _settings(conf, url):
    try:
        settings = options.of_url(conf, url)
        ipc_directory.check(settings)
        accesses.Access(settings)
        if settings.matchmaker != options.EMBEDDED:
            engines.check(settings.matchmaker)
    except (ValueError, engines.MissingLibrary) as error:
        raise errors.ConfigurationError(str(error)) from None
    return settings
