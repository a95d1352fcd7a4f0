# SPDX-License-Identifier: Apache-2.0
"""Opened and closed many times, nothing adds up."""

import gc
import os

import pytest

from tests.support import leaks
from tests.support import rpc
from tests.support import soaks
from tests.support import waiting
from zmq_threaded import topic
from zmq_threaded.service import executors


def _counts(ipc_dir):
    gc.collect()
    return (len(leaks.threads()), leaks.descriptors(),
            len(leaks.ipc_files(ipc_dir)))


def _is_as(before, now):
    return now[0] <= before[0] and now[1] <= before[1] and now[2] == 0


def _open_use_close(ipc_dir):
    with rpc.Node(ipc_dir) as node:
        parts = node.runtime()
        address = topic.rpc('exchange', 'topic')
        service = parts.service([address])
        executor = executors.load('threading', max_workers=1)
        service.start(executors.submitting(executor, lambda ctxt, msg: msg))
        client = node.client(exchange='exchange')
        assert client.call({}, 'any', value=1)['args'] == {'value': 1}
        client.cast({}, 'any', value=2)
        client.prepare(fanout=True).cast({}, 'any', value=3)
        deadline = waiting.time.monotonic() + 5
        rpc.driver(client.transport)._parts().outbox.begin_flush(
            deadline).wait(deadline)
        service.stop()
        executor.shutdown(wait=False)


@pytest.mark.parametrize('rounds', soaks.sizes(25, 100))
def test_stop_and_cleanup_give_everything_back(no_leaks, ipc_dir, rounds):
    _open_use_close(ipc_dir)
    before = _counts(ipc_dir)
    for number in range(rounds):
        _open_use_close(ipc_dir)
        waiting.until(lambda: _is_as(before, _counts(ipc_dir)),
                      what=f'round {number}: {_counts(ipc_dir)} {before}')
    groups = os.path.join(ipc_dir, 'registry', 'groups')
    assert os.listdir(groups) == []
