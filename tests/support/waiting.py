# SPDX-License-Identifier: Apache-2.0
"""Waiting for conditions, never for time to pass."""

import time


def until(condition, seconds=10.0, what=None):
    """Return the first true value of condition(); fail after a deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(
                f'not within {seconds} s: {what or condition}')
        time.sleep(0.005)
