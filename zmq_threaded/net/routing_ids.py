# SPDX-License-Identifier: Apache-2.0
"""An unpredictable start of the ids that libzmq generates.

A ROUTER calls its anonymous peers `\\0` and a number that counts up from the
C library's rand(), which libzmq never seeds. Whoever can guess the next number
may claim it as an identity of its own: libzmq then aborts the process when an
anonymous peer gets the same one, and the answers to a caller that has left go
to whoever claims the number of that caller.
"""

import ctypes
import os

# PyDLL keeps the GIL, so that no other thread makes a socket in between.
_srand = ctypes.PyDLL(None).srand
_srand.argtypes = [ctypes.c_uint]
_srand.restype = None


def shuffle():
    """Begin the numbers of libzmq anew, at a place that nobody can know; to
    be called before a socket is made.

    The numbers of a REQ are sent to its peers, so those of a ROUTER that was
    made before or after must not follow from them.

    Thread: any, also of a forked child.
    """
    _srand(int.from_bytes(os.urandom(4), 'big'))
