# SPDX-License-Identifier: Apache-2.0
"""Memory, descriptors, CPU time and context switches, as Linux says."""

import glob
import os
import resource
import time

_SWITCHES = {'voluntary_ctxt_switches': 'voluntary_switches',
             'nonvoluntary_ctxt_switches': 'involuntary_switches'}


def sample():
    """Return what this process uses, all threads included, as a dict.

    The keys are 'rss_bytes', 'fds', 'cpu_seconds', 'voluntary_switches' and
    'involuntary_switches'.
    """
    with open('/proc/self/statm', encoding='ascii') as statm:
        resident_pages = int(statm.read().split()[1])
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {'rss_bytes': resident_pages * os.sysconf('SC_PAGE_SIZE'),
            # One of them is the directory that is being listed.
            'fds': len(os.listdir('/proc/self/fd')) - 1,
            'cpu_seconds': time.process_time(),
            'voluntary_switches': used.ru_nvcsw,
            'involuntary_switches': used.ru_nivcsw}


def sample_of(pid):
    """Return the CPU time and the switches of another process.

    None means that the process is gone.
    """
    try:
        with open(
            f'/proc/{pid}/stat', encoding='utf-8', errors='replace'
        ) as stat:
            # The name of the program, in brackets, may contain anything.
            ticks = stat.read().rpartition(')')[2].split()[11:13]
    except OSError:
        return None
    counted = {'cpu_seconds': sum(map(int, ticks)) / os.sysconf('SC_CLK_TCK'),
               **dict.fromkeys(_SWITCHES.values(), 0)}
    for path in glob.glob(f'/proc/{pid}/task/*/status'):
        for name, value in _switches(path):
            counted[name] += value
    return counted


def _switches(path):
    try:
        with open(path, encoding='utf-8', errors='replace') as status:
            fields = [line.split(':') for line in status]
    except OSError:
        return []  # the thread has ended
    return [
        (_SWITCHES[each[0]], int(each[1]))
        for each in fields
        if each[0] in _SWITCHES
    ]
