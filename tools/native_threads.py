# SPDX-License-Identifier: Apache-2.0
"""Keep a process that uses oslo.messaging on native threads, without eventlet.

``import oslo_messaging`` imports oslo.service, whose default back end imports
eventlet, and futurist, oslo.utils and oslo.messaging each try to import it
too. Call use_native_threads() before the first of these imports.
"""

import importlib.abc
import sys


class _EventletBlocker(importlib.abc.MetaPathFinder):
    """Makes eventlet look uninstalled: optional imports then fall back."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition('.')[0] == 'eventlet':
            raise ModuleNotFoundError(
                f'{fullname} is kept out by native_threads', name=fullname)
        return None


def use_native_threads():
    """Keep eventlet out of this process.

    oslo.service then uses its threading back end.
    May be called more than once. Raises RuntimeError if it comes too late,
    that is if eventlet has been imported already.
    """
    if 'eventlet' in sys.modules:
        raise RuntimeError(
            'eventlet is already imported: call use_native_threads() earlier'
        )
    if not any(
        isinstance(finder, _EventletBlocker) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _EventletBlocker())
    # oslo_service looks for eventlet while it is imported: not before here.
    from oslo_service import backend
    backend.init_backend(backend.BackendType.THREADING)
