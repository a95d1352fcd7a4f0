# SPDX-License-Identifier: Apache-2.0
"""The age of a record, by a clock that all processes of a machine share and
that nobody can set.

This clock is the monotonic one. It stands still while the machine sleeps, and
so do the threads that renew records. It begins anew with each boot, and a
container may have a time namespace with a clock of its own. So a stamp names
the boot and the namespace.
"""

import functools
import math
import os
import struct
import time

_STAMP = struct.Struct('>16sQQ')
SIZE = _STAMP.size
# Those bytes at the end of a stamp that tell the time.
TIME_SIZE = 8
# Seconds by which the clocks of two processors may differ.
_SKEW = 1.0


def now() -> bytes:
    """A stamp of this moment: SIZE bytes; no bytes if this kernel has no
    name for its boot.
    """
    boot, namespace = _clock()
    return (_STAMP.pack(boot, namespace, time.monotonic_ns()) if boot
            else b'')


def age(stamp: object) -> float | None:
    """Seconds since a stamp was made, infinite if that was in an earlier
    boot; None if the stamp says nothing here.
    """
    boot, namespace = _clock()
    if not boot or not isinstance(stamp, bytes) or len(stamp) != SIZE:
        return None
    its_boot, its_namespace, nanoseconds = _STAMP.unpack(stamp)
    if its_boot != boot:
        return math.inf
    seconds = time.monotonic() - nanoseconds / 1e9
    if its_namespace != namespace or seconds < -_SKEW:
        return None
    return max(0.0, seconds)


def age_of_text(text: str) -> float | None:
    """As age(), of a stamp in the digits of bytes.hex()."""
    try:
        return age(bytes.fromhex(text))
    except ValueError:
        return None


@functools.cache
def _clock() -> tuple[bytes, int]:
    try:
        with open('/proc/sys/kernel/random/boot_id') as text:
            boot = bytes.fromhex(text.read().strip().replace('-', ''))
    except (OSError, ValueError):
        return b'', 0
    try:
        return boot, os.stat('/proc/self/ns/time').st_ino
    except OSError:
        return boot, 0      # a kernel without time namespaces
