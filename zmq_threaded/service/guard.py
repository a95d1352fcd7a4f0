# SPDX-License-Identifier: Apache-2.0
"""What happens around a worker of an oslo.messaging server.

An endpoint may raise what is no Exception: CancelledError of asyncio,
SystemExit of a library. The server of oslo.messaging lets it through to the
executor of futurist, and that keeps it in a future at which nobody looks; of
SystemExit its worker thread dies and is not replaced. So what the server has
to do with a message is run here, and what it did not answer is answered.
"""

import sys
from typing import Any

import futurist
from oslo_messaging import server as oslo_server

from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded.service import executors
from zmq_threaded.service import fast_executor
from zmq_threaded.status import meters

LOG = logs.get(__name__)


def guarded(on_incoming, work=None):
    """The callback of a listener, safe from what its endpoints raise.

    :param work: status.meters.Work, which measures the workers
    :param on_incoming: that of an oslo.messaging server; any other one is
        returned as it is
    """
    server = _server(on_incoming)
    if server is None:
        return on_incoming
    work = work or meters.Work()

    def submit(messages):
        try:
            executors.run_in(
                server._work_executor, run, server._process_incoming,
                messages, work, getattr(server, '_allow_requeue', False))
        except RuntimeError:
            _forget_threads_that_never_ran(server._work_executor)
            raise
    return submit


def equip(on_incoming, name):
    """Replace the executor that the server of a callback has just made.

    Only if all is as it is known of oslo.messaging; else it is left alone.

    :param name: of executors.load(), or executors.SERVER for the server's own
    :raises: ConfigurationError when there is no executor of that name
    """
    if name == executors.SERVER:
        return
    server = _server(on_incoming)
    made: Any = getattr(server, '_work_executor', None)
    if not _is_new(made):
        LOG.debug('The executor of %s is not the new pool of threads that '
                  'oslo.messaging is known to make. It is left alone, and '
                  'rpc_zmq_executor is not heeded.',
                  type(server or on_incoming).__name__)
        return
    server._work_executor = executors.with_workers(name, made._max_workers)
    made.shutdown(wait=False)


def _is_new(executor):
    """Whether it is futurist's pool of threads, which had no work yet."""
    return (type(executor) is futurist.ThreadPoolExecutor and executor.alive
            and not executor.num_workers and not executor.queue_size
            and isinstance(getattr(executor, '_max_workers', None), int))


def passes_on(on_incoming):
    """Whether a callback does nothing but to pass messages on to a pool of
    threads of a kind that waits for nothing.
    """
    executor = getattr(_server(on_incoming), '_work_executor', None)
    return type(executor) in (futurist.ThreadPoolExecutor,
                              fast_executor.FastExecutor)


def workers(on_incoming):
    """How many threads the server of a callback has, None if unknown."""
    return getattr(getattr(_server(on_incoming), '_work_executor', None),
                   '_max_workers', None)


def _forget_threads_that_never_ran(executor):
    """futurist counts a thread that could not be started, for want of memory
    or by a limit: after as many as it has workers nothing is run any more,
    and its shutdown fails.
    """
    threads: Any = getattr(executor, '_workers', None)
    for thread in list(threads or ()):
        if thread.ident is None:
            threads.remove(thread)


def _server(on_incoming):
    """The server whose callback does nothing but to submit the messages to
    its executor, or None.
    """
    server = getattr(on_incoming, '__self__', None)
    if (isinstance(server, oslo_server.MessageHandlingServer)
            and getattr(on_incoming, '__func__', None)
            is oslo_server.MessageHandlingServer._on_incoming):
        return server
    return None


def run(process, messages, work, may_requeue=False):
    """Have messages processed, and answer those that were not.

    :param process: called with a list of Incoming
    :param work: status.meters.Work, which measures the workers
    :param may_requeue: whether notifications that fail are requeued
    """
    messages = [each for each in messages if each.begin()]
    if not messages:
        return
    first = messages[0].request
    work.begin([each.request for each in messages])
    try:
        process(messages)
    except BaseException as error:
        # Named first: what is logged may itself fail.
        for each in messages:
            _settle(each, sys.exc_info(), may_requeue)
        LOG.error('A worker was to end by %s, which oslo.messaging does not '
                  'handle. Its messages are answered, and it goes on.',
                  type(error).__name__, exc_info=error)
    finally:
        work.end(first)


def _settle(incoming, failure, may_requeue):
    """Answer a message whose endpoint did not end as it should. To a
    notification happens what happens to it after any exception.
    """
    if not incoming.is_notification():
        incoming.reply(failure=failure)
    elif may_requeue:
        incoming.requeue()
    else:
        incoming.acknowledge()
    if not incoming.request.is_done:
        _acknowledge(incoming)


def _acknowledge(incoming):
    try:
        incoming.acknowledge()
    except errors.ExpiredMessage as error:
        LOG.info('%s', error)
