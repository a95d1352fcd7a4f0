# SPDX-License-Identifier: Apache-2.0
"""Message bodies, made in advance so that the timed loop only picks one.

Client and servers each make the same pool from the same arguments, so a server
can check what arrived without being sent a second copy.
"""

import math
import random
import statistics

REAL = 'real'
REAL_MEDIAN_BYTES = 2500
REAL_P90_BYTES = 6500

_POOL_LENGTH = 1024
_POOL_BYTES = 8 << 20
_TEXT_BYTES = 1 << 16
# Neighbouring threads start at different places in the pool.
_THREAD_STRIDE = 37
_ALPHABET = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _'


def real_sizes(length):
    """Return that many sizes in bytes.

    The sizes are evenly spaced over the lognormal distribution.
    """
    normal = statistics.NormalDist()
    mean = math.log(REAL_MEDIAN_BYTES)
    deviation = math.log(REAL_P90_BYTES / REAL_MEDIAN_BYTES) / normal.inv_cdf(
        0.9
    )
    quantiles = ((index + 0.5) / length for index in range(length))
    return [
        round(math.exp(mean + deviation * normal.inv_cdf(q)))
        for q in quantiles
    ]


def make_pool(size, seed=1):
    """Return a list of ASCII strings, the same ones for the same seed.

    Each string has `size` bytes, or one of the REAL sizes.
    """
    source = random.Random(seed)
    if size == REAL:
        sizes = real_sizes(_POOL_LENGTH)
        source.shuffle(sizes)
    else:
        sizes = [size] * max(1, min(_POOL_LENGTH, _POOL_BYTES // max(1, size)))
    text = ''.join(source.choices(_ALPHABET, k=_TEXT_BYTES))
    text *= 1 + math.ceil(max(sizes) / _TEXT_BYTES)
    starts = (source.randrange(_TEXT_BYTES) for _ in sizes)
    return [text[start:start + length] for start, length in zip(starts, sizes)]


def pool_index(thread, sequence, length):
    """Return which entry of a pool an operation of a thread carries.

    The length is that of the pool.
    """
    return (sequence + thread * _THREAD_STRIDE) % length
