# SPDX-License-Identifier: Apache-2.0
"""The loop of a receiver: a ROUTER to the clients, a DEALER to each service.

It keeps nothing that a restart would lose: what it has not passed on is still
in the custody of its sender, and an answer finds its client by the envelope.
"""

import select
import time

import zmq

from zmq_threaded import counters as counts
from zmq_threaded import endpoints
from zmq_threaded import logs
from zmq_threaded import mailbox
from zmq_threaded import quotas
from zmq_threaded import sockets
from zmq_threaded import threads
from zmq_threaded import wire
from zmq_threaded.net import binding
from zmq_threaded.net import descriptors
from zmq_threaded.net import flood_guard
from zmq_threaded.net import inbox
from zmq_threaded.net import ipc_path
from zmq_threaded.net import multiparts
from zmq_threaded.net import slow_clients
from zmq_threaded.receiver import address
from zmq_threaded.receiver import backend
from zmq_threaded.receiver import backends
from zmq_threaded.receiver import closing
from zmq_threaded.receiver import published
from zmq_threaded.receiver import route
from zmq_threaded.security import authenticator
from zmq_threaded.security import revocations
from zmq_threaded.status import of_receiver

LOG = logs.get(__name__)

_TICK = 0.5
# So that answers get their turn.
_READ_AT_ONCE = 100
_ROUNDS = 20
_FEWEST_DESCRIPTORS = 1024
_JOIN_LIMIT = 5.0
_TERM_LIMIT = 2.0


class Receiver:
    """Passes messages between the clients of its port and the services of
    its directory.

    :param settings: options.Settings
    :raises: binding.BindError, descriptors.Short

    Thread: any for the public methods, receiver for the rest.
    """

    def __init__(self, settings, ipc_dir):
        self._settings = settings
        self._ipc_dir = ipc_dir
        self.counters = counts.Counters()
        descriptors.warn_if_few(_FEWEST_DESCRIPTORS)
        self._ipc = ipc_path.IpcPath(
            address.receiver_path(settings, ipc_dir),
            f'the receiver of {settings.host}, port {settings.receiver_port}',
            is_shared=True)
        self._context = sockets.new_context(settings)
        undo: list = [self._context.term]
        try:
            self._open(undo)
        except BaseException:
            threads.do_all(reversed(undo))
            raise

    def _open(self, undo):
        """:param undo: list to which is added what undoes it"""
        self._sockets = sockets.Sockets(self._context, self._settings)
        # None: its port is open. Its key stays that of its start.
        self._pair = self._sockets.access.pair_to_bind()
        self._authenticator = authenticator.Authenticator(self._sockets,
                                                          self.counters)
        undo.append(self._authenticator.end)
        self._authenticator.start()
        self._front = self._sockets.router()
        undo.append(lambda: self._sockets.close(self._front, linger=0))
        # The port first: to bind the path would take it from a receiver that
        # runs.
        binding.bind_receiver_port(self._front, self._settings, self._pair)
        undo.append(lambda: binding.unbind_ipc(self._ipc.path))
        self._bind_path()
        self._make_parts()

    @property
    def key(self):
        """The public key of its port; b'' for an open one."""
        return self._pair.public if self._pair else b''

    def look_at_keys(self):
        """Read the trusted keys again, if they have changed."""
        self._authenticator.look_again()

    def _bind_path(self):
        endpoint = f'ipc://{self._ipc.path}'
        if endpoints.is_there(endpoint) and not endpoints.is_dead(endpoint):
            raise binding.BindError(
                f'{endpoint}: a receiver of {self._settings.host}, port '
                f'{self._settings.receiver_port}, runs already, bound to '
                'another address')
        # First, for services read it as soon as somebody listens.
        address.leave_note(self._settings, self._ipc_dir, self.key)
        try:
            self._ipc.bind(self._front)
        except BaseException:
            address.remove_note(self._settings, self._ipc_dir)
            raise

    def _make_parts(self):
        self._slow = slow_clients.SlowClients(self._send_front, self.counters)
        self._guard = flood_guard.FloodGuard(
            self._settings.receiver_port, self._settings.max_message_size,
            self.counters, is_alone=True)
        local = endpoints.own_addresses(self._settings.receiver_port,
                                        self._ipc.path)
        self._inbox = inbox.Inbox(
            self._front, self.counters, multiparts.receive_uncopied,
            self._guard, local, revocations.Revocations(
                self._sockets.access, self.counters, local))
        self._active = set()
        self._is_busy = False
        self._closing = closing.Closing(lambda: self._last_moved)
        self._last_moved = self._next_tick = 0.0
        self._queries = quotas.Quota(quotas.QUERIES)
        self._may_warn = counts.Seldom()
        self._may_warn_of_shortage = counts.Seldom()
        self._published = published.Published(self._settings, True)
        self._facts = of_receiver.made(self._settings, self._ipc_dir,
                                       self.counters)
        self._wakeup = mailbox.Wakeup()
        self._epoll = select.epoll()
        self._epoll.register(self._wakeup.fd, select.EPOLLIN)
        self._epoll.register(self._front.fileno(), select.EPOLLIN)
        self._backends = backends.Backends(
            self._sockets, self._ipc_dir, self._epoll, self.counters)
        self._loop = threads.Loop('zmq-receiver', self._turn, self._wakeup.set,
                                  self.counters, finish=self._finish)

    def start(self):
        self._loop.start()
        self._guard.start()

    def stop(self):
        """Refuse what comes, pass on the answers that are under way, and end;
        within zmq_linger and a few seconds.
        """
        linger = self._settings.linger
        # Not by unbinding: libzmq would drop all clients with it.
        self._closing.begin(linger)
        self._wakeup.set()
        self._closing.wait()
        self._guard.stop()
        self._loop.stop()
        deadline = time.monotonic() + _JOIN_LIMIT
        self._guard.join(deadline)
        has_ended = self._loop.join(deadline)
        self._authenticator.end()
        if has_ended:
            sockets.terminate(self._context, _TERM_LIMIT + linger)
            self._ipc.remove()

    def _finish(self):
        # First: a successor may bind the path as soon as the port is free.
        self._ipc.announce_end()
        address.remove_note(self._settings, self._ipc_dir)
        self._facts.close()
        # As little as possible is between the last look and the close.
        self._move()
        self._refuse_early()
        self._sockets.close(self._front)
        for _, each in self._backends:
            each.close(self._settings.linger)
        self._epoll.close()
        self._wakeup.close()

    # One turn

    def _turn(self):
        ready = self._epoll.poll(self._time_to_wait())
        self._wakeup.clear_if(ready)
        self._active.update(self._backends.ready(ready))
        if self._closing.has_begun:
            self._refuse_early()
        self._tick_when_due()
        self._is_busy = self._move()

    def _time_to_wait(self):
        if self._is_busy:
            return 0.0
        tick = max(0.0, self._next_tick - time.monotonic())
        return min(tick, slow_clients.TICK) if len(self._slow) else tick

    def _tick_when_due(self):
        self._slow.retry()
        if time.monotonic() < self._next_tick:
            return
        self._next_tick = time.monotonic() + _TICK
        self._published.check()
        self._facts.turn()
        if self._ipc.is_lost() and self._ipc.restore(self._front):
            # It may have gone with the whole directory.
            address.leave_note(self._settings, self._ipc_dir, self.key)
        for instance_id, each in self._backends:
            if each.is_lost():
                self._drop(instance_id, each)
            else:
                each.check()
        self._active.update(self._backends.all())

    def _move(self):
        """Read and write until nothing is left: a ZMQ_FD signals a change
        once, and any operation on its socket may swallow that.

        :returns: whether there may be more to do
        """
        for _ in range(_ROUNDS):
            is_empty = self._read_front()
            if is_empty and not self._active:
                return False
            active, self._active = self._active, set()
            for each in active:
                self._read_backend(each)
        return True

    # From the clients to the services

    def _read_front(self):
        """:returns: whether nothing is left"""
        for _ in range(_READ_AT_ONCE):
            try:
                frames = self._inbox.receive()
            except zmq.Again:
                return True
            if frames is None:
                if self._inbox.is_behind:
                    return False
                continue
            self._last_moved = time.monotonic()
            try:
                self._forward(route.route(frames))
            except wire.Malformed as error:
                self._malformed(error)
        return False

    def _forward(self, request):
        # Questions are about what was forwarded, and are answered to the end.
        if request.kind == wire.QUERY and not self._queries.allows(
                (request.frames[0], *request.instances)):
            self.counters.add('queries_ignored')
            return
        # Once, for stop() is called by another thread.
        closes_in = self._closing.closes_in()
        is_late = closes_in is not None and request.kind != wire.QUERY
        for instance_id in self._backends.here(request.instances):
            try:
                outcome = (backend.UNREACHABLE if is_late
                           else self._forward_to(instance_id, request))
            except descriptors.Short as error:
                self._refuse_for_shortage(request, instance_id, error)
                continue
            if outcome is backend.TAKEN:
                self.counters.add('forwarded')
            else:
                self._refuse(request, instance_id, outcome, closes_in)

    def _forward_to(self, instance_id, request):
        to_service = self._backends.to(instance_id)
        if to_service is None:
            return backend.GONE
        if self._guard.is_short and request.size() > flood_guard.SMALL:
            raise descriptors.Short(flood_guard.SHORT_OF_MEMORY)
        outcome = to_service.forward(request)
        self._active.add(to_service)
        if outcome == backend.GONE:
            # Its last answers first: to be gone means that what it did not
            # answer goes to another one.
            self._read_backend(to_service)
        return outcome

    def _refuse_for_shortage(self, request, instance_id, error):
        text = (f'the receiver of {self._settings.host}, port '
                f'{self._settings.receiver_port}, is {error}')
        if self._may_warn_of_shortage.allows():
            LOG.warning('A message cannot be passed on for now, and its '
                        'sender has to wait: %s', text)
        self._refuse(request, instance_id, backend.BUSY, None, text)

    def _drop(self, instance_id, lost):
        self._read_backend(lost)
        self._active.discard(lost)
        self._backends.remove(instance_id)
        for request in lost.close():
            self._refuse(request, instance_id, backend.GONE,
                         self._closing.closes_in())

    def _refuse(self, request, instance_id, outcome, closes_in, text=''):
        self.counters.add(f'refused_{wire.REASON_NAMES[outcome]}')
        if request.kind != wire.QUERY:
            self._answer(route.refusal(request, instance_id, outcome, text,
                                       closes_in))
        elif outcome != backend.BUSY:
            self._answer(route.refusal(request, instance_id, outcome))

    def _refuse_early(self):
        """What no service has yet goes to another one, while its sender can
        still be told.
        """
        for instance_id, each in self._backends:
            for request in each.take_early():
                self._refuse(request, instance_id, backend.UNREACHABLE,
                             self._closing.closes_in())

    # From the services to the clients

    def _read_backend(self, to_service):
        for frames in to_service.receive():
            if route.is_answer(frames):
                self.counters.add('answered')
                self._answer(frames)
            else:
                self._malformed('an answer to nobody')
        if to_service.is_behind():
            self._active.add(to_service)

    def _answer(self, frames):
        self._last_moved = time.monotonic()
        outcome = (multiparts.SLOW if frames[0] in self._slow
                   else self._send_front(frames))
        if outcome is multiparts.SLOW:
            self._slow.keep(frames, sum(map(len, frames)))
        elif outcome is multiparts.GONE:
            self.counters.add('replies_to_vanished_clients')

    def _send_front(self, frames):
        answer = (self._guard.answer if self._guard.is_watching
                  else multiparts.answer)
        return answer(self._front, frames, multiparts.forward)

    def _malformed(self, error):
        self.counters.add('malformed')
        if self._may_warn.allows():
            LOG.warning('A message cannot be read: %s (more of them are only '
                        'counted for a while)', error)
