# SPDX-License-Identifier: Apache-2.0
"""Files that others may remove or replace at any time."""

import contextlib
import os


def remove(path):
    """Remove a file, if that is possible."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def identity(path):
    """What tells a file from another one that has its name later; None if
    there is none.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
