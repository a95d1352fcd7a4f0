# SPDX-License-Identifier: Apache-2.0
"""All links of an outbox, and the lanes on them."""

import select

from zmq_threaded import sockets
from zmq_threaded.client import link as links
from zmq_threaded.client import reasons


class Lanes:
    """Lanes by instance; opens the links that they need, and closes those
    that nobody uses.

    :param context: zmq.Context
    :param epoll: select.epoll on which the outbox thread waits
    :param unsettled: client.unsettled.Unsettled
    :param on_message: called with a link and each multipart that arrives
    :param unreachable: called with an instance to which there is no way, and
        why
    :param tell: runs a callable in the outbox thread, later

    Thread: outbox.
    """

    def __init__(self, context, settings, epoll, counters, unsettled,
                 on_message, unreachable, tell):
        self._context = context
        self._settings = settings
        self._epoll = epoll
        self._counters = counters
        self._unsettled = unsettled
        self._on_message = on_message
        self._unreachable = unreachable
        self._tell = tell
        self._links = {}
        self._by_fd = {}
        self._lanes = {}

    def __iter__(self):
        return iter(list(self._lanes.values()))

    def get(self, instance_id):
        """The lane to an instance, or None if there is none yet."""
        return self._lanes.get(instance_id)

    def to(self, instance, is_patient=lambda: False):
        """The lane to an instance, opened if need be; None if it cannot be
        reached from here.

        :param is_patient: whether to open one though the file of its socket
            is missing, which may come back; called only when it is
        :raises: descriptors.Short
        """
        lane = self._lanes.get(instance.id)
        if lane is None:
            link = self._links.get(instance.endpoints) or self._open(
                instance, is_patient)
            if link is not None:
                lane = self._lanes[instance.id] = link.lane(instance)
        return lane

    def _open(self, instance, is_patient):
        endpoint = sockets.reachable(instance.endpoints)
        if endpoint is None:
            missing = sockets.missing(instance.endpoints)
            endpoint = missing if missing and is_patient() else None
        if endpoint is None:
            return self._unreachable(instance,
                                     reasons.unusable(instance.endpoints))
        try:
            link = links.Link(self._context, self._settings,
                              instance.endpoints, endpoint, instance.receiver,
                              self._counters, self._unsettled,
                              self._on_message, self._watch, self._tell)
        except sockets.BadEndpoint as error:
            return self._unreachable(instance, str(error))
        self._links[instance.endpoints] = link
        return link

    def _watch(self, link, old_fd):
        if self._by_fd.pop(old_fd, None) is link:
            self._epoll.unregister(old_fd)
        self._by_fd[link.fd] = link
        self._epoll.register(link.fd, select.EPOLLIN)

    def is_idle(self):
        """Whether nothing is waited for."""
        return all(link.is_idle() for link in self._links.values())

    def pump(self, ready):
        """Receive and send on the links that epoll reports.

        :param ready: list of (fd, event mask)
        """
        for fd, _ in ready:
            if fd in self._by_fd:
                self._by_fd[fd].pump()

    def pump_queued(self):
        """Send what was just queued."""
        for link in list(self._links.values()):
            link.pump_queued()

    def check(self, now):
        """Look after connections; to be called a few times a second.

        :returns: list of the lanes whose connection is lost
        """
        lost, oldest = [], now - self._settings.pool_ttl
        for link in list(self._links.values()):
            for lane in link.idle_since(oldest):
                self._forget(lane)
            if link.is_idle():
                if link.used_at < oldest:
                    self._close(link)
            elif not link.check(now):
                lost += link.lanes()
        return lost

    def was_paused(self, now):
        """This process was; who came back meanwhile is not lost."""
        for link in self._links.values():
            link.was_paused(now)

    def remove(self, lane):
        """Its instance is lost, and so is its connection if that led to
        nobody else.
        """
        if lane.link.to_receiver:
            self._forget(lane)
        else:
            self._close(lane.link)

    def _forget(self, lane):
        lane.link.remove(lane)
        self._lanes.pop(lane.instance.id, None)

    def _close(self, link):
        for lane in link.lanes():
            self._lanes.pop(lane.instance.id, None)
        del self._links[link.endpoints]
        if self._by_fd.pop(link.fd, None) is link:
            self._epoll.unregister(link.fd)
        link.close()

    def close(self):
        for link in list(self._links.values()):
            self._close(link)
