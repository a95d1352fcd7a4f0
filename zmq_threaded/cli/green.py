# SPDX-License-Identifier: Apache-2.0
"""Keeps a verb from importing eventlet."""

import sys


def avoid() -> None:
    """From now on eventlet cannot be imported by this process.

    Libraries import it wherever it is installed, which takes them half of the
    time of a small command and prints a warning; and no green thread is ever
    in this process.
    """
    sys.modules.setdefault('eventlet', None)    # type: ignore[arg-type]
