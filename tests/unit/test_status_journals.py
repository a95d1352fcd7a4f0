# SPDX-License-Identifier: Apache-2.0
"""What status says of journals."""

import dataclasses

import pytest

from zmq_threaded.cli import overview
from zmq_threaded.journal import locks
from zmq_threaded.journal import survey
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import journals

WELL = survey.Found('/dir/a.journal', 7, 3, 600, 99.0)


@pytest.mark.parametrize('changed, kinds', [
    ({}, []),
    ({'owner': None}, ['journal_without_owner']),
    ({'owner': locks.UNNAMED}, []),
    ({'owner': None, 'oldest': 1.0}, []),
    ({'owner': None, 'count': 0, 'oldest': 0.0}, []),
    ({'problem': 'permission denied'}, []),
    ({'owner': None, 'problem': 'permission denied'},
     ['journal_unreadable'])])
def test_what_is_wrong_with_a_journal(changed, kinds):
    cloud = clouds.Cloud('place', journals=[
        dataclasses.replace(WELL, **changed)])
    assert [each.kind for each in journals.problems(cloud)] == kinds


def test_journals_are_shown():
    cloud = clouds.Cloud('place', journals=[WELL], journals_dir='/dir')
    row, = overview.document(cloud)['journals']
    assert row == {'journal': 'a.journal', 'path': '/dir/a.journal',
                   'owner': 7, 'alive': True, 'messages': 3, 'bytes': 600,
                   'oldest': 99.0, 'problem': ''}
    assert 'Journals in /dir' in str(overview.parts(cloud)[-1])


@pytest.mark.parametrize('changed, owner, alive', [
    ({'owner': None}, 'has ended', False),
    ({'owner': locks.UNNAMED}, 'lives in another PID namespace', True),
    ({'owner': None, 'is_owner_known': False}, 'not known', None)])
def test_an_owner_without_a_number(changed, owner, alive):
    cloud = clouds.Cloud('place', journals=[
        dataclasses.replace(WELL, **changed)])
    row, = journals.rows(cloud)
    assert (row['owner'], row['alive']) == (owner, alive)


def test_a_directory_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / 'file').touch()
    cloud = clouds.Cloud('place')
    journals.look(cloud, str(tmp_path / 'file'))
    assert [each.kind for each in journals.problems(cloud)] == ['journals']
    cloud = clouds.Cloud('place')
    journals.look(cloud, str(tmp_path / 'none'))
    assert not list(journals.problems(cloud)) and not cloud.journals
