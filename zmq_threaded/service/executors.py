# SPDX-License-Identifier: Apache-2.0
"""The executors that run what a service receives.

Under oslo.messaging the server makes its own, which guard.equip() replaces by
the one of rpc_zmq_executor. Programs on the bare
:class:`zmq_threaded.service.service.Service` make one with load(). Others can
add executors under the entry point group zmq_threaded.executors.
"""

import inspect
import sys

from stevedore import driver

from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded.service import fast_executor

LOG = logs.get(__name__)

ENTRY_POINTS = 'zmq_threaded.executors'
FAST = 'fast'
# No name of the group: the server's own.
SERVER = 'server'


def load(name, **options):
    """Make an executor.

    :param name: 'fast', 'threading', 'dynamic', 'synchronous', or what others
        added
    :param options: arguments of its class, such as max_workers
    :raises: ConfigurationError when there is none of that name
    """
    return maker(name)(**options)


def maker(name):
    """The class of an executor, or what else makes one.

    :raises: ConfigurationError when there is none of that name
    """
    if name == FAST:
        return fast_executor.FastExecutor   # without a look at the disk
    try:
        return driver.DriverManager(ENTRY_POINTS, name).driver
    except RuntimeError as error:
        raise errors.ConfigurationError(
            f'executor {name!r}: {error}') from None


def with_workers(name, count):
    """As load(), with so many threads at the most if it has any."""
    make = maker(name)
    takes_it = 'max_workers' in inspect.signature(make).parameters
    return make(max_workers=count) if takes_it else make()


def run_in(executor, *args):
    """Have a function called, whose result nobody wants.

    :param args: the function and what it is called with
    """
    if isinstance(executor, fast_executor.FastExecutor):
        executor.execute(*args)
    else:
        executor.submit(*args)


def submitting(executor, handler):
    """A callback for Service.start() that runs a handler in an executor.

    :param handler: called with (context, message); what it returns or raises
        is the reply to a call
    """
    def on_incoming(incoming):
        for each in incoming:
            try:
                run_in(executor, _run, handler, each)
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
