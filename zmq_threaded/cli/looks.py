# SPDX-License-Identifier: Apache-2.0
"""The look at the cloud with which several verbs begin."""

import contextlib
from collections.abc import Iterator

from zmq_threaded import options
from zmq_threaded.cli import libraries
from zmq_threaded.cli import output
from zmq_threaded.status import looking

# Seconds within which the registry has to answer.
_REGISTRY = 5.0


@contextlib.contextmanager
def opened(settings: options.Settings) -> Iterator[looking.Look]:
    """One that is closed in the end.

    :raises: output.CannotAsk
    """
    libraries.load(settings)
    try:
        look = looking.Look(settings, _REGISTRY)
    except options.InvalidOption as error:
        raise output.CannotAsk(str(error)) from None
    with contextlib.closing(look):
        yield look
