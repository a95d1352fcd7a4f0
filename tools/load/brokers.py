# SPDX-License-Identifier: Apache-2.0
"""What the broker of a transport uses, if it runs on this machine."""

import os

from load import resources

_PROGRAMS = {'rabbit': ('beam.smp',), 'kombu': ('beam.smp',)}


class Broker:
    """The processes of the broker of a URL.

    There are none if the URL has no broker, or if the broker runs elsewhere.
    """

    def __init__(self, url):
        scheme = url.partition(':')[0].partition('+')[0]
        self._pids = _running(_PROGRAMS.get(scheme, ()))

    def sample(self):
        """Return CPU time and context switches up to now, or None.

        The form is that of load.resources.
        """
        samples = [
            each for each in map(resources.sample_of, self._pids) if each
        ]
        if not samples:
            return None
        return {
            name: sum(each[name] for each in samples) for name in samples[0]
        }


def _running(programs):
    return [int(pid) for pid in os.listdir('/proc') if pid.isdigit()
            and _name(pid) in programs] if programs else []


def _name(pid):
    try:
        with open(
            f'/proc/{pid}/comm', encoding='utf-8', errors='replace'
        ) as comm:
            return comm.read().strip()
    except OSError:
        return None
