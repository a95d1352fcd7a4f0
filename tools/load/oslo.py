# SPDX-License-Identifier: Apache-2.0
"""Both ends of a contestant that is an oslo.messaging transport URL.

Both sides use the global cfg.CONF: oslo.messaging registers its tracing
options only there, and RPC with a private ConfigOpts fails with
NoSuchOptError.
"""

import logging
import socket
import warnings

from native_threads import use_native_threads

# Before anything of oslo is imported.
use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

from load import errors  # noqa: E402
from load import payload as payloads  # noqa: E402

_BROKER_PORTS = {'rabbit': 5672, 'kombu': 5672, 'amqp': 5672, 'kafka': 9092}
_BROKER_CONNECT_SECONDS = 3
_PROBE_TIMEOUT_SECONDS = 2
_NO_CONTEXT = {}


def configure(verbose, warnings_to_stderr):
    """Set up cfg.CONF and logging, once in each process."""
    cfg.CONF(
        [], project='rpc_load', default_config_files=[], default_config_dirs=[]
    )
    if verbose:
        logging.basicConfig(
            level=logging.INFO, format='%(process)d %(name)s: %(message)s'
        )
        return
    warnings.simplefilter('ignore')
    handler = (
        logging.StreamHandler()
        if warnings_to_stderr
        else logging.NullHandler()
    )
    logging.basicConfig(
        level=logging.WARNING, format='%(message)s', handlers=[handler]
    )


def open_transport(
    url, exchange, get_transport=oslo_messaging.get_rpc_transport
):
    """Return a transport; raises UsageError for a URL that no driver takes."""
    try:
        parsed = oslo_messaging.TransportURL.parse(cfg.CONF, url)
        if parsed.transport in ('rabbit', 'kombu'):
            # Leave nothing behind in the broker. This is why the exchange must
            # be one that nobody else uses: it goes too, and others may have
            # declared theirs to stay.
            parsed.query.setdefault('amqp_auto_delete', 'true')
        # A notifier cannot name one; the driver reads it while it is made.
        cfg.CONF.set_override('control_exchange', exchange)
        return get_transport(cfg.CONF, parsed)
    except Exception as error:
        raise errors.UsageError(errors.first_line(error)) from error


def check_broker(url):
    """Raise StartError if the URL names a broker that cannot be reached.

    A broker is reached if one of its hosts takes connections. The rabbit
    driver would try again for ever. The URL is one that open_transport() took.
    """
    parsed = oslo_messaging.TransportURL.parse(cfg.CONF, url)
    default_port = _BROKER_PORTS.get(parsed.transport)
    if default_port is None:
        return
    places = [(host.hostname or '127.0.0.1', host.port or default_port)
              for host in parsed.hosts] or [('127.0.0.1', default_port)]
    problems = [_connect_problem(place) for place in places]
    if all(problems):
        raise errors.StartError('no broker at ' + ', '.join(problems))


def _connect_problem(place):
    try:
        with socket.create_connection(place, timeout=_BROKER_CONNECT_SECONDS):
            return None
    except OSError as error:
        return f'{place[0]}:{place[1]} ({error.strerror or error})'


def make_client(url, topic, mode, token, size, timeout):
    """The sending end for a mode."""
    if mode.name == 'notify':
        return NotifyingClient(url, topic, token, size)
    return RpcClient(url, topic, mode, token, size, timeout)


def make_server(spec, receiver):
    """The receiving end for a mode."""
    if spec['mode'] == 'notify':
        transport = open_transport(
            spec['url'],
            spec['topic'],
            oslo_messaging.get_notification_transport,
        )
        return OsloServer(
            spec,
            transport,
            oslo_messaging.get_notification_listener(
                transport,
                [oslo_messaging.Target(topic=spec['topic'])],
                [_NotificationEndpoint(receiver)],
            ),
        )
    transport = open_transport(spec['url'], spec['topic'])
    target = oslo_messaging.Target(topic=spec['topic'], server=spec['name'])
    return OsloServer(spec, transport, oslo_messaging.get_rpc_server(
        transport, target, [_Endpoint(receiver)]))


class NotifyingClient:
    """A notifier and its transport, shared by all client threads."""

    def __init__(self, url, topic, token, size):
        self.pool = payloads.make_pool(size)
        self._token = token
        self._transport = open_transport(
            url, topic, oslo_messaging.get_notification_transport)
        self._notifier = oslo_messaging.Notifier(
            self._transport,
            'rpc_load',
            driver='messagingv2',
            topics=[topic],
            retry=-1,
        )

    def operation(self, thread):
        """Return operation(ident, payload) -> True."""
        notify, token = self._notifier.info, self._token

        def operation(ident, payload):
            notify(
                _NO_CONTEXT,
                'take',
                {'id': ident, 'token': token, 'payload': payload},
            )
            return True
        return operation

    def probe(self):
        """Send one message that servers only count; may raise."""
        self._notifier.info(_NO_CONTEXT, 'probe', {})

    def close(self):
        """Release the transport."""
        self._transport.cleanup()


class RpcClient:
    """The sending end: one transport shared by all client threads."""

    def __init__(self, url, topic, mode, token, size, timeout):
        self.pool = payloads.make_pool(size)
        self._mode = mode
        self._token = token
        self._transport = open_transport(url, topic)
        target = oslo_messaging.Target(
            topic=topic, fanout=mode.every_server or None
        )
        client = oslo_messaging.get_rpc_client(self._transport, target)
        # prepare() costs time, and client.call() would do it each time.
        self._context = client.prepare(timeout=timeout)
        self._probing = client.prepare(timeout=_PROBE_TIMEOUT_SECONDS)

    def operation(self, thread):
        """Return operation(ident, payload) -> bool; False is a wrong reply."""
        return _OPERATIONS[self._mode.name](self._context, self._token)

    def probe(self):
        """Send one message that servers only count; may raise."""
        send = self._probing.call if self._mode.replies else self._probing.cast
        send(_NO_CONTEXT, 'probe')

    def close(self):
        """Release the transport."""
        self._transport.cleanup()


def _call_operation(context, token):
    call = context.call

    def operation(ident, payload):
        sent = {'id': ident, 'token': token, 'payload': payload}
        return call(_NO_CONTEXT, 'echo', **sent) == sent
    return operation


def _cast_operation(context, token):
    cast = context.cast

    def operation(ident, payload):
        cast(_NO_CONTEXT, 'take', id=ident, token=token, payload=payload)
        return True
    return operation


_OPERATIONS = {
    'call': _call_operation,
    'cast': _cast_operation,
    'fanout': _cast_operation,
}


class _Endpoint:
    def __init__(self, receiver):
        self._receiver = receiver

    def echo(self, ctxt, id, token, payload):
        self._receiver.accept(id, token, payload)
        return {'id': id, 'token': token, 'payload': payload}

    def take(self, ctxt, id, token, payload):
        self._receiver.accept(id, token, payload)

    def probe(self, ctxt):
        self._receiver.probed()


class _NotificationEndpoint:
    def __init__(self, receiver):
        self._receiver = receiver

    def info(self, ctxt, publisher, event_type, payload, metadata):
        if event_type == 'probe':
            self._receiver.probed()
        else:
            self._receiver.accept(
                payload['id'], payload['token'], payload['payload']
            )


class OsloServer:
    """The receiving end in its own process: an RPC server or a listener."""

    def __init__(self, spec, transport, server):
        self._transport = transport
        self._server = server
        # Only now is the option registered; start() reads it.
        cfg.CONF.set_override('executor_thread_pool_size', spec['workers'])

    def start(self):
        """Start listening.

        A driver may block here for as long as its broker is away.
        Raises what the driver raised, if it cannot listen.
        """
        try:
            self._server.start()
        except AttributeError as error:
            # oslo.messaging 18.3 fails while it tells of a driver's error: its
            # RPC server has no attribute `target`.
            raise error.__context__ or error from None

    def stop(self):
        """Finish what was received and release everything."""
        self._server.stop()
        self._server.wait()
        self._transport.cleanup()
