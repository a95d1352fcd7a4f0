# SPDX-License-Identifier: Apache-2.0
"""What a process has found to be wrong with itself."""

import time

from zmq_threaded.status import findings


def test_what_is_noted_again_is_one_finding_with_its_first_time():
    found = findings.Findings()
    assert found.note('deaf', 'a', 'it hears nothing', 'start it')
    first = found.all()[0]
    assert not found.note('deaf', 'a', 'it hears nothing yet', 'start it')
    assert [each.text for each in found.all()] == ['it hears nothing yet']
    assert found.all()[0].since == first.since


def test_what_is_cleared_is_gone():
    found = findings.Findings()
    found.note('deaf', 'a', 'text', 'remedy')
    found.note('deaf', 'b', 'text', 'remedy')
    found.note('mute', 'b', 'text', 'remedy')
    assert found.clear('deaf', 'a')
    assert not found.clear('deaf', 'a')
    assert [(each.kind, each.subject) for each in found.all()] == [
        ('deaf', 'b'), ('mute', 'b')]


def test_a_document_says_how_long_a_finding_has_lasted():
    found = findings.Findings()
    found.note('deaf', 'a', 'text', 'remedy')
    document = found.all()[0].document(time.monotonic() + 7)
    assert 7 <= document.pop('since') < 10
    assert document == {'kind': 'deaf', 'subject': 'a', 'text': 'text',
                        'remedy': 'remedy'}


def test_findings_are_bounded():
    found = findings.Findings()
    for number in range(2 * findings.MOST):
        found.note('deaf', str(number), 'x' * 10_000, 'y' * 10_000)
    assert len(found.all()) == findings.MOST
    assert all(len(each.text) + len(each.remedy) < 1_000
               for each in found.all())
