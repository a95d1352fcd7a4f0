# SPDX-License-Identifier: Apache-2.0
"""A contestant: one transport with its server processes and client threads."""

import concurrent.futures
import secrets
import threading
import time

from load import brokers
from load import errors
from load import latency
from load import ledger
from load import node as nodes
from load import processes
from load import worker

_PROBE_PAUSE_SECONDS = 0.05
_PROBE_ARRIVAL_SECONDS = 1
_CLOSE_SECONDS = 5
_STOP_SECONDS = 10
_HURRIED_STOP_SECONDS = 2


class Contestant:
    """All that belongs to one transport under test, from start to stop."""

    def __init__(self, entry, options, cores=()):
        self.name, self.url, self.kind = entry.name, entry.url, entry.kind
        self.options = options
        self.mode = options.mode
        self.rounds = []
        self.broker = brokers.Broker(entry.url)
        self._cores = cores
        self.latencies = latency.Latencies()
        self.tally = ledger.Tally()
        self.server_wrong = 0
        self.trouble = None
        self.servers = []
        self.workers = []
        self._token = secrets.token_hex(4)
        # A topic of its own: nothing of an earlier run can arrive here.
        self._topic = f'rpc_load_{self._token}'
        self._node = (
            nodes.NodeReceiver(self.url) if nodes.is_wanted(self.url) else None
        )
        self._reached_at = self._node.url if self._node else self.url
        self._client = self._make_client()

    def start_servers(self):
        """Start the server processes and their receiver; wait for none."""
        if self._node:
            self._node.start()
        for number in range(self.options.servers):
            self.servers.append(processes.ServerProcess(self._spec(number)))

    def connect(self, deadline):
        """Wait for the servers and for the way to them.

        Raises StartError at the deadline.
        """
        try:
            if self._node:
                self._node.wait_ready(deadline)
            for server in self.servers:
                server.wait_ready(deadline)
            self._probe(deadline)
        except errors.LoadError as error:
            raise errors.StartError(f'{self.name}: {error}') from error
        self.workers = [
            worker.Worker(
                number, self._client.operation(number), self._client.pool
            )
            for number in range(self.options.threads)
        ]
        for thread in self.workers:
            thread.start()

    def statuses(self):
        """Return what each server counted and uses now."""
        return [server.ask('status') for server in self.servers]

    def take_tally(self):
        """Compare what was sent with what has arrived up to now."""
        return self._reconcile(
            [server.ask('ledger') for server in self.servers]
        )

    def due(self):
        """Return how many messages were sent without an exception."""
        return sum(
            thread.sequence - thread.failed_count for thread in self.workers
        )

    def wrong(self):
        """Return how many replies, and messages at the servers, were wrong."""
        return sum(thread.wrong for thread in self.workers) + self.server_wrong

    def failures(self):
        """Return {exception class name: worker.Failures} of all threads."""
        merged = {}
        for thread in self.workers:
            for name, failures in thread.failures.items():
                known = merged.setdefault(
                    name, worker.Failures(0, failures.example)
                )
                known.count += failures.count
        return merged

    def sound(self):
        """Return whether all messages arrived once and came back right."""
        return not (self.trouble or self.tally.lost or self.tally.duplicated
                    or self.wrong() or self.failures())

    def stop(self, hurried=False):
        """Stop threads, client and servers.

        Returns a list of what did not stop by itself.
        """
        complaints = self._stop_client()
        seconds = _HURRIED_STOP_SECONDS if hurried else _STOP_SECONDS
        with concurrent.futures.ThreadPoolExecutor(
            max(1, len(self.servers))
        ) as pool:
            stops = [
                pool.submit(server.stop, seconds) for server in self.servers
            ]
        problems = [stop.exception() for stop in stops if stop.exception()]
        complaints += [f'{self.name}: {problem}' for problem in problems]
        if self.workers and not problems and not hurried:
            self.tally = self._reconcile([stop.result() for stop in stops])
        if self._node:
            complaints += [
                f'{self.name}: {problem}' for problem in self._node.stop()
            ]
        return complaints

    def _make_client(self):
        options = self.options
        if self.kind == 'raw':
            from load import raw
            return raw.RawClient(self._topic, options.servers, self._token,
                                 options.size, options.timeout)
        from load import oslo

        return oslo.make_client(
            self._reached_at,
            self._topic,
            self.mode,
            self._token,
            options.size,
            options.timeout,
        )

    def _spec(self, number):
        return {
            'kind': self.kind,
            'mode': self.mode.name,
            'url': self._reached_at,
            'topic': self._topic,
            'number': number,
            'name': f'load{number}',
            'token': self._token,
            'size': self.options.size,
            'workers': self.options.workers,
            'verbose': self.options.verbose,
            'core': self._cores[number % len(self._cores)]
            if self._cores
            else None,
        }

    def _probe(self, deadline):
        problem = 'no message arrived'
        while time.monotonic() < deadline:
            try:
                self._client.probe()
                if self._probe_arrived(
                    min(deadline, time.monotonic() + _PROBE_ARRIVAL_SECONDS)
                ):
                    return
            except errors.LoadError:
                raise
            except Exception as error:
                problem = errors.first_line(error)
                time.sleep(_PROBE_PAUSE_SECONDS)
        raise errors.StartError(
            f'the client does not reach the server: {problem}'
        )

    def _probe_arrived(self, deadline):
        enough = all if self.mode.every_server else any
        while not enough(status['probes'] for status in self.statuses()):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PROBE_PAUSE_SECONDS)
        return True

    def _reconcile(self, answers):
        self.server_wrong = sum(answer['wrong'] for answer in answers)
        sent = {thread.number: thread.sent() for thread in self.workers}
        tally = ledger.reconcile(
            sent,
            [answer['ledger'] for answer in answers],
            self.mode.every_server,
        )
        self.server_wrong += tally.never_sent
        return tally

    def _stop_client(self):
        for thread in self.workers:
            thread.end()
        closing = threading.Thread(target=self._client.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            return [
                f'{self.name}: the client transport did not close in '
                f'{_CLOSE_SECONDS} s'
            ]
        return []
