# SPDX-License-Identifier: Apache-2.0
"""futurist executors for a service without an oslo.messaging server.

Under oslo.messaging the server brings its own executor; this is for tests,
tools and programs on the bare :class:`zmq_threaded.service.service.Service`.
Others can add executors under the entry point group zmq_threaded.executors.
"""

import sys

from stevedore import driver

from zmq_threaded import errors
from zmq_threaded import logs

LOG = logs.get(__name__)

ENTRY_POINTS = 'zmq_threaded.executors'


def load(name, **options):
    """Make an executor.

    :param name: 'threading', 'dynamic', 'synchronous', or what others added
    :param options: arguments of its class, such as max_workers
    :raises: ConfigurationError when there is none of that name
    """
    try:
        return driver.DriverManager(ENTRY_POINTS, name, invoke_on_load=True,
                                    invoke_kwds=options).driver
    except RuntimeError as error:
        raise errors.ConfigurationError(
            f'executor {name!r}: {error}') from None


def submitting(executor, handler):
    """A callback for Service.start() that runs a handler in an executor.

    :param handler: called with (context, message); what it returns or raises
        is the reply to a call
    """
    def on_incoming(incoming):
        for each in incoming:
            try:
                executor.submit(_run, handler, each)
            except Exception as error:
                LOG.warning('The executor refused a message: %s', error)
                each.refuse_busy()
    return on_incoming


def _run(handler, incoming):
    if not incoming.begin():
        return None
    if incoming.is_notification():
        return _run_notification(handler, incoming)
    try:
        incoming.acknowledge()
    except errors.ExpiredMessage as error:
        LOG.info('%s', error)
        return None
    try:
        result = handler(incoming.ctxt, incoming.message)
    except BaseException:
        # SystemExit too: it would end the worker, or with a synchronous
        # executor the poller.
        incoming.reply(failure=sys.exc_info())
    else:
        incoming.reply(result)
    return None


def _run_notification(handler, incoming):
    try:
        handler(incoming.ctxt, incoming.message)
    except BaseException:
        LOG.exception('Notification %s was not handled', incoming.msg_id)
    incoming.acknowledge()
