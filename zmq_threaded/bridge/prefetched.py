# SPDX-License-Identifier: Apache-2.0
"""What the rabbit driver loses when a server stops, and how it does not.

Between stop() and cleanup() of its RPC listener the broker goes on sending
requests to that listener. cleanup() then deletes a queue, and while it waits
for the answer it acknowledges all that came and forgets it. So a listener
that has stopped is unsubscribed here, and gives back what came meanwhile: the
broker sends that to another server at once.
"""

from zmq_threaded import logs

LOG = logs.get(__name__)


def give_back(listener) -> None:
    """Unsubscribe a listener that has stopped; to be called by one thread at
    a time, for its connection is not made for more.

    :param listener: of any driver; what is not known to be of the rabbit
        driver for RPC is left alone
    """
    consumers = _consumers(listener)
    for consumer in consumers:
        consumer.callback = _requeue
    for consumer, tag in list(consumers.items()):
        try:
            consumer.cancel(tag)
        except Exception as error:
            # The broker is gone, and has what was not acknowledged.
            LOG.debug('zmq: a queue of the bridge was not unsubscribed: %s',
                      error)
            return


def _requeue(message):
    message.requeue()


def _consumers(listener):
    """The consumers and their tags; empty if the listener has another shape
    than that of oslo.messaging 18.
    """
    polled = getattr(listener, '_poll_style_listener', None)
    if type(polled).__name__ != 'RpcAMQPListener':
        return {}
    connection = getattr(getattr(polled, 'conn', None), 'connection', None)
    consumers = getattr(connection, '_consumers', None)
    if not isinstance(consumers, dict) or not all(
            hasattr(each, 'callback') and hasattr(each, 'cancel')
            for each in consumers):
        LOG.warning('zmq: this version of the rabbit driver is not known: '
                    'what it receives while a server stops may be lost')
        return {}
    return consumers
