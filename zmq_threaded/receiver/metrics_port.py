# SPDX-License-Identifier: Apache-2.0
"""The address on which a receiver serves the metrics of its node."""

import threading
from typing import Any

from zmq_threaded import counters
from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded import threads

LOG = logs.get(__name__)

# Seconds between two attempts to bind: another receiver of this node may be
# about to end, and a receiver passes messages on without this port as well.
_AGAIN = 1.0
_JOIN_LIMIT = 5.0


class MetricsPort:
    """Serves the metrics of a node in a thread of its own.

    :param address: rpc_zmq_metrics_address
    :raises: options.InvalidOption

    Thread: any for start() and stop(), zmq-metrics for the rest.
    """

    def __init__(self, address: str, ipc_dir: str) -> None:
        try:
            # Of the extra `metrics`, and takes a tenth of a second.
            from zmq_threaded.metrics import serving
            self._address = serving.parse(address)
        except ImportError:
            raise options.InvalidOption(
                'rpc_zmq_metrics_address: prometheus_client is missing: pip '
                "install 'zmq-threaded[metrics]'") from None
        except ValueError as error:
            raise options.InvalidOption(
                f'rpc_zmq_metrics_address: {error}') from None
        self._open: Any = serving.Server
        self._ipc_dir, self._name = ipc_dir, address
        self._may_warn = counters.Seldom(60.0)
        self._ended = threading.Event()
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread.

        :raises: descriptors.Short
        """
        self._thread = threads.started(self._run, 'zmq-metrics')

    def stop(self) -> None:
        """End the thread, and wait for that."""
        self._ended.set()
        if self._thread is not None:
            if self._server is not None:
                self._server.stop()
            self._thread.join(_JOIN_LIMIT)

    def _run(self):
        while not self._ended.is_set():
            try:
                self._server = self._open(self._address, self._ipc_dir)
            except OSError as error:
                self._tell(error)
                self._ended.wait(_AGAIN)
                continue
            LOG.info('The metrics of this node are served on '
                     'http://%s/metrics', self._name)
            self._server.serve(self._ended.is_set)
            return

    def _tell(self, error):
        if self._may_warn.allows():
            LOG.warning('The metrics of this node cannot be served on %s: '
                        '%s; trying on (rpc_zmq_metrics_address)',
                        self._name, error)


def opened(settings: options.Settings, ipc_dir: str) -> MetricsPort | None:
    """The MetricsPort that the settings ask for.

    :raises: options.InvalidOption
    """
    return (MetricsPort(settings.metrics_address, ipc_dir)
            if settings.metrics_address else None)
