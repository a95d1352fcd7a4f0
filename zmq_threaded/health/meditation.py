# SPDX-License-Identifier: Apache-2.0
"""The section of zmq in a Guru Meditation Report of oslo.reports.

Nothing here imports oslo.reports, which takes a tenth of a second: a process
that makes reports has imported it by itself.
"""

import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from zmq_threaded.service import service as services
from zmq_threaded.status import findings

_REPORTS = 'oslo_reports.guru_meditation_report'
_TITLE = 'Messages over zmq'
# Seconds to wait for the outbox thread, which may be what hangs.
_PATIENCE = 0.5
_registered: list[str] = []


def register(generate: Callable[[], dict[str, Any]]) -> None:
    """Add the section to the reports of this process, once, if it makes any;
    to be called now and then, for oslo.reports may be imported at any time.

    :param generate: returns what the section shows
    """
    module = sys.modules.get(_REPORTS)
    if _registered or module is None or getattr(
            module.__spec__, '_initializing', False):
        return
    _registered.append(_TITLE)
    from oslo_reports.models import with_default_views

    module.TextGuruMeditation.register_section(
        _TITLE,
        lambda: with_default_views.ModelWithDefaultViews(data=generate()))


def describe(listening: Iterable[services.Service],
             survey: Callable[[float], dict[str, dict]],
             found: findings.Findings) -> dict[str, Any]:
    """What is known of one driver.

    :param survey: see Outbox.survey()
    """
    now = time.monotonic()
    return {
        'in custody, by topic': _custody(survey),
        'services': {each.vitals.name: _service(each, now)
                     for each in listening},
        'what is wrong': {f'{each.kind} {each.subject}': each.text
                          for each in found.all()} or 'nothing is known'}


def threads() -> dict[str, str]:
    """Our threads, and at which line each of them stands."""
    frames = sys._current_frames()
    return {each.name: _where(frames.get(each.ident or 0))
            for each in threading.enumerate()
            if each.name.startswith('zmq-')}


def _custody(survey):
    try:
        return {topic: f'{each["count"]} messages, the oldest for '
                       f'{each["oldest"]:.1f} s' for topic, each
                in survey(_PATIENCE).items()} or 'nothing'
    except Exception as error:
        return str(error)


def _service(service, now):
    vitals = service.vitals
    mute = ', '.join(f'{name} {seconds:.1f} s ago' for name, seconds
                     in vitals.is_mute_for(now).items())
    return {
        'endpoints': ', '.join(service.instance.endpoints),
        'listens': vitals.is_listening(),
        'messages held': service.backlog(),
        'workers': vitals.workers,
        'no worker was free for': f'{vitals.has_waited(now):.1f} s',
        'last turns of its threads': mute}


def _where(frame):
    if frame is None:
        return 'it has ended'
    return (f'{frame.f_code.co_filename}:{frame.f_lineno} in '
            f'{frame.f_code.co_name}')
