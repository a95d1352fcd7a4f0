# SPDX-License-Identifier: Apache-2.0
"""Processes that spell the URL of one registry differently take over the
journals of each other.
"""

from tests.functional import test_journal
from tests.support import journaled
from tests.support import waiting


def test_another_spelling_of_the_registry_is_the_same_one(node, redis):
    node.query = {'rpc_zmq_custody': 'process', 'rpc_zmq_topology': 'direct',
                  'rpc_zmq_transport': 'ipc'}
    host = redis.url.removeprefix('redis://').partition('?')[0]
    sender = journaled.sender(
        node, rpc_zmq_matchmaker=f'redis://default:any@{host}?db=0')
    for number in range(3):
        test_journal.tell(sender, do='cast', method='note',
                          args={'value': number})
    sender.kill()
    assert len(journaled.names(node)) == 1
    node.query['rpc_zmq_matchmaker'] = redis.url
    server = node.server()
    waiting.until(lambda: len(server.endpoint.seen) == 3, 30)
    waiting.until(lambda: not journaled.names(node))
