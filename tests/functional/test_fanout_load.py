# SPDX-License-Identifier: Apache-2.0
"""Fanouts to many services of few processes, by the tool that measures
them.
"""

import argparse

import fanout_load
import pytest

SERVERS, INSTANCES = 3, 70


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    fanout_load.configure()
    folder = tmp_path_factory.mktemp('ipc')
    return {line.get('fanouts', 'idle'): line
            for line in fanout_load.measure(argparse.Namespace(
                url=f'zmq:///?rpc_zmq_ipc_dir={folder}', servers=SERVERS,
                instances=INSTANCES, runs=3, warm=2, interval=0.2, idle=1.0,
                calls=True))}


@pytest.mark.parametrize('kind, count', [('cold', 3), ('warm', 6)])
def test_each_fanout_reaches_each_service_once(measured, kind, count):
    line = measured[kind]
    assert (line['count'], line['missing'], line['repeated']) == (count, 0, 0)


def test_calls_do_not_wait_for_the_end_of_a_fanout(measured):
    line = measured['cold']
    assert line['calls'] > line['count']
    assert line['call_p50_ms'] < line['median_ms'] / 2


def test_a_service_more_is_no_thread_more(measured):
    assert measured['idle']['threads'] < SERVERS * INSTANCES / 2
