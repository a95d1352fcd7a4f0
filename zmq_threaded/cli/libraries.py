# SPDX-License-Identifier: Apache-2.0
"""The libraries of the engines of a registry, for the verbs that ask one with
a limit of time.
"""

import contextlib

from zmq_threaded import options
from zmq_threaded.registry import tooz_url


def load(settings: options.Settings) -> None:
    """Load what the first question to the registry would load, which has to
    be answered in time: a busy machine takes seconds for more than a hundred
    modules, and that says nothing of the registry.
    """
    if settings.matchmaker == options.EMBEDDED:
        return
    from stevedore import driver
    # What is wrong with a library, the question finds as well, and explains.
    with contextlib.suppress(Exception):
        driver.DriverManager('tooz.backends',
                             tooz_url.split(settings.matchmaker).scheme)
    # Of a host name, when it is resolved.
    'localhost'.encode('idna')
