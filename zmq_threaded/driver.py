# SPDX-License-Identifier: Apache-2.0
"""The driver: oslo.messaging's face of zmq_threaded."""

import dataclasses
import math
import os
import queue
import sys
import threading
import time

from oslo_messaging._drivers import base

from zmq_threaded.net import descriptors
from zmq_threaded import errors
from zmq_threaded import exits
from zmq_threaded import logs
from zmq_threaded.registry import engines
from zmq_threaded import options
from zmq_threaded import payload
from zmq_threaded.registry import registry_url
from zmq_threaded import runtime
from zmq_threaded import sizes
from zmq_threaded.net import binding
from zmq_threaded import threads
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.registry import registry as registries
from zmq_threaded.client import requests
from zmq_threaded.client import results
from zmq_threaded.service import batch as batches
from zmq_threaded.service import executors
from zmq_threaded.service import listener

LOG = logs.get(__name__)

_FOR_EVER = 10 * 365 * 86400

# How often a thread may open a driver while it opens one: a signal handler or
# a log handler comes in between, and ends.
_NESTED_LIMIT = 2
_opening = threading.local()


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
        # By pid: any that was used, which leads to the latest. No lock: log
        # handlers may come in between, and wait for another thread that comes
        # here.
        self._runtimes = {}
        exits.prepare()

    def __getstate__(self):
        return {**self.__dict__, '_runtimes': {}}

    # Sending

    def send(self, target, ctxt, message, wait_for_reply=None, timeout=None,
             call_monitor_timeout=None, retry=None, transport_options=None):
        topic = topics.rpc(self._exchange(target), target.topic,
                           None if target.fanout else target.server)
        body, flags = self._encode(ctxt, message, topic)
        at_least_once = bool(transport_options
                             and transport_options.at_least_once)
        attempts = 1 if at_least_once else _attempts(retry)
        try:
            if not wait_for_reply:
                kind = wire.FANOUT if target.fanout else wire.CAST
                return self._keep(kind, topic, body, flags, attempts)
            reply = self._call(topic, body, flags, _deadline(timeout),
                               attempts, call_monitor_timeout)
        except registries.Nobody as nobody:
            raise _nobody(nobody, topic, message, timeout, at_least_once,
                          self._explain(topic)) from None
        except descriptors.Short as error:
            raise _not_sent(topic, error) from None
        return self._result(reply)

    def _keep(self, kind, topic, body, flags, attempts):
        """Give a message into the custody of the outbox."""
        waiter = None
        if attempts is not None:
            # Whoever limits the attempts wants to know how they ended.
            waiter, flags = queue.SimpleQueue(), flags | wire.CONFIRM
        delivery = deliveries.Delivery(
            kind=kind, topic=topic, body=body, flags=flags,
            expires=time.monotonic() + self._settings.message_ttl,
            attempts=attempts, waiter=waiter, spread=kind != wire.CAST)
        deadline = time.monotonic() + self._settings.cast_timeout
        outbox = self._parts().outbox
        problem = outbox.post(delivery, deadline)
        if problem:
            raise errors.MessageDeliveryFailure(f'{delivery}: {problem}')
        if waiter is not None:
            self._wait_until_taken(outbox, delivery, deadline)

    def _wait_until_taken(self, outbox, delivery, deadline):
        try:
            event, detail = delivery.waiter.get(
                timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            outbox.withdraw(delivery)
            event, detail = deliveries.FAILED, (
                'no service confirmed it within rpc_cast_timeout; it may have '
                f'been executed{_because(delivery)}')
        if event == deliveries.NOBODY:
            raise registries.Nobody(attempts_used_up=True)
        if event == deliveries.FAILED:
            raise errors.MessageDeliveryFailure(f'{delivery}: {detail}')

    def _call(self, topic, body, flags, deadline, attempts, monitor_timeout):
        chosen = None
        if not threads.may_wait():
            raise errors.MessageDeliveryFailure(
                f'A call to {topic} was made by a thread of the zmq driver, '
                f'{threading.current_thread().name}, which must not wait')
        if not monitor_timeout:
            try:
                return self._parts().requests.call(topic, body, flags,
                                                   deadline, attempts)
            except requests.NeedsOutbox as needs:
                chosen = needs.instance
        return self._call_by_outbox(topic, body, flags, deadline, attempts,
                                    monitor_timeout or 0.0, chosen)

    def _call_by_outbox(self, topic, body, flags, deadline, attempts,
                        monitor_timeout, chosen=None):
        """A call whose server may send more than one message.

        :param chosen: the Instance whose turn it is, None to choose one
        :param monitor_timeout: longest silence of the server in seconds; 0
            for any
        """
        delivery = deliveries.Delivery(
            kind=wire.CALL, topic=topic, body=body, flags=flags,
            expires=deadline, attempts=attempts, waiter=queue.SimpleQueue(),
            client_timeout=min(float(monitor_timeout), wire.LONGEST_TIMEOUT),
            chosen=chosen)
        outbox = self._parts().outbox
        try:
            return self._wait_for_reply(outbox, delivery, deadline,
                                        monitor_timeout or _FOR_EVER)
        except BaseException:
            # It may have been interrupted; if it has ended, this does nothing.
            outbox.withdraw(delivery)
            raise

    def _wait_for_reply(self, outbox, delivery, deadline, longest_silence):
        problem = outbox.post(delivery, deadline)
        if problem:
            raise errors.MessagingTimeout(f'{delivery}: {problem}')
        silence_until = time.monotonic() + longest_silence
        while True:
            try:
                event, detail = delivery.waiter.get(timeout=max(
                    0.0, min(deadline, silence_until) - time.monotonic()))
            except queue.Empty:
                event, detail = deliveries.EXPIRED, None
            if event == deliveries.EXPIRED:
                self._parts().counters.add('calls_timed_out')
                raise errors.MessagingTimeout(
                    f'Timed out waiting for a reply to, or a sign of life '
                    f'of, {delivery}{self._why_unsent(delivery)}')
            if event == deliveries.REPLIED:
                return detail
            _raise_if_failed(event, detail, delivery)
            if event == deliveries.HEARTBEAT:
                # That the server has the call, which its poller says as well,
                # is no sign that a worker is at it.
                silence_until = time.monotonic() + longest_silence

    def _why_unsent(self, delivery):
        if delivery.sent_at:
            return f' from {delivery.instance}'
        why = delivery.held_up or self._explain(delivery.topic)
        return f', which was not sent: {why}'

    def _explain(self, topic):
        # Not _parts(): after cleanup() that would open everything anew.
        parts = self._latest()
        return ('the driver was closed' if parts is None or parts.is_closed
                else parts.explain(topic))

    def _encode(self, ctxt, message, topic):
        if not isinstance(ctxt, dict):
            ctxt = ctxt.to_dict()   # as the rabbit driver does
        body, flags = payload.dump((ctxt, message),
                                   self._settings.serialization)
        sizes.check(body, self._settings.max_message_size,
                    'A message for', topic)
        return body, flags

    def _result(self, reply):
        return results.result(reply, self._allowed_remote_exmods)

    def require_features(self, requeue=False):
        """All that there is: requeueing."""

    def send_notification(self, target, ctxt, message, version, retry):
        # What the version asks for, an envelope or none, is rabbit's format;
        # the listener gets the message itself either way.
        topic = topics.notifications(self._exchange(target), target.topic)
        body, flags = self._encode(ctxt, message, topic)
        # oslo.messaging logs that one failed, and its log handler makes a
        # notification of that: which must not fail as well, and so on.
        tells_of_one = getattr(sys.exc_info()[1], 'is_of_notification', False)
        attempts = None if tells_of_one else _attempts(retry)
        try:
            self._keep(wire.NOTIFY, topic, body, flags, attempts)
        except registries.Nobody as nobody:
            raise _of_notification(
                _nobody(nobody, topic, message, None, False,
                        self._explain(topic))) from None
        except errors.MessageDeliveryFailure as error:
            raise _of_notification(error) from None
        except descriptors.Short as error:
            raise _of_notification(_not_sent(topic, error)) from None

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
            service = parts.service(
                addresses, pool=pool,
                batch=batches.Batch(batch_size or 1, batch_timeout))
        except (errors.OutOfResources, base.TransportDriverError,
                *binding.FAILURES) as error:
            # oslo.messaging 18 reports a failure to listen as "object has no
            # attribute 'target'", its own mistake.
            LOG.error('Nobody will listen on %s: %s',
                      ', '.join(map(str, addresses)), error)
            raise _as_ours(error) from None
        return listener.ZmqListener(service, parts.stopped, parts.forget,
                                    batch_size, batch_timeout,
                                    self._settings.executor)

    # The parts of this process

    def cleanup(self):
        """Close everything; what is not acknowledged gets rpc_cast_timeout
        before. A later use opens everything anew.
        """
        parts = self._latest()
        if parts is not None:
            parts.close(time.monotonic() + self._settings.cast_timeout)

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
        parts = self._latest()
        if parts is None or parts.is_closed:
            parts = self._new_parts(parts)
        return parts

    def _latest(self):
        """The Runtime of this process, which may be closed; None before the
        first.
        """
        parts = self._runtimes.get(os.getpid())
        while parts is not None and parts.successors:
            parts = parts.successors['is']
        return parts

    def _new_parts(self, closed):
        if exits.is_ending():
            raise errors.MessageDeliveryFailure(
                'This process is ending, and the zmq driver was closed')
        exits.prepare()
        exits.close_forgotten()
        made = self._open()
        # Of all threads that found this one closed, the first one's, in one
        # step.
        parts = (self._runtimes.setdefault(made.pid, made) if closed is None
                 else closed.successors.setdefault('is', made))
        self._runtimes[made.pid] = parts
        if parts is made:
            parts.tell()
        else:
            made.close(time.monotonic())
        return parts

    def _open(self):
        depth = _opening.__dict__.setdefault('depth', 0)
        if depth >= _NESTED_LIMIT:
            raise errors.MessageDeliveryFailure(
                'The zmq driver is just being opened by this thread')
        _opening.depth = depth + 1
        try:
            return runtime.Runtime(self._settings, owner=self)
        except options.InvalidOption as error:
            raise errors.ConfigurationError(str(error)) from None
        except binding.FAILURES as error:
            raise errors.OutOfResources(
                f'The zmq driver cannot be opened: {error}') from None
        finally:
            _opening.depth = depth


def _because(delivery=None):
    """What this process lacks, for the text of an exception."""
    lack = (delivery and delivery.held_up) or descriptors.complaint()
    return f' (this process is {lack})' if lack else ''


def _deadline(timeout):
    # Waiting for ever: queues and locks refuse an infinite timeout.
    return time.monotonic() + min(_FOR_EVER, math.inf if timeout is None
                                  else timeout)


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


def _nobody(nobody, topic, message, timeout, at_least_once, why):
    within = '' if nobody.attempts_used_up else f' within {timeout} s'
    text = (f'No service listens on {topic}, or none could be reached'
            f'{within}: {nobody.why or why}')
    if not nobody.attempts_used_up:
        return errors.MessagingTimeout(text + _because())
    if at_least_once:
        return errors.undeliverable(topic, message, text)
    return errors.MessageDeliveryFailure(text)


def _not_sent(topic, error):
    return errors.OutOfResources(f'A message for {topic} was not sent: this '
                                 f'process is {error}')


def _of_notification(error):
    error.is_of_notification = True
    return error


def _raise_if_failed(event, detail, delivery):
    if event == deliveries.NOBODY:
        raise registries.Nobody(attempts_used_up=True)
    if event == deliveries.LOST:
        raise errors.ServerGone(
            f'The server of {delivery} was lost before it replied (instance '
            f'{delivery.instance}); it may have been executed')
    if event == deliveries.FAILED:
        raise errors.MessageDeliveryFailure(f'{delivery}: {detail}')


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
    scheme = url.transport.partition('+')[2]
    hosts = [(host.hostname, host.port, host.username, host.password)
             for host in url.hosts]
    try:
        settings = options.read(conf, url.query, scheme, hosts)
        settings = dataclasses.replace(
            settings, matchmaker=registry_url.of_virtual_host(
                settings.matchmaker, url.virtual_host))
        options.check_ipc_directory(settings)
        if settings.matchmaker != options.EMBEDDED:
            engines.check(settings.matchmaker)
    except (options.InvalidOption, engines.MissingLibrary,
            ValueError) as error:
        raise errors.ConfigurationError(str(error)) from None
    return settings
