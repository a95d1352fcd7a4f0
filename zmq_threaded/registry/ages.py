# SPDX-License-Identifier: Apache-2.0
"""Which files of records were renewed, and which are of the dead."""

import math
import os
import time
from typing import Any

from zmq_threaded.registry import stamps

# Records of earlier releases whose renewals are remembered.
_REMEMBERED = 10_000


class Ages:
    """Which records were renewed within their life.

    :param expire: seconds of that

    Thread: registry.
    """

    def __init__(self, expire: float) -> None:
        self._expire = expire
        # By path: the time of the file, and until when it is young.
        self._renewed: dict[str, tuple[float | None, float]] = {}

    def is_young(self, path: str, content: dict[str, Any],
                 status: os.stat_result) -> bool:
        """Whether the record was renewed within its life.

        :param content: of the record, unpacked
        :param status: of its file
        """
        age = stamps.age(content.get('stamp'))
        if age is None:
            return self._was_renewed(path, status.st_mtime)
        return age <= self._expire or (age != math.inf
                                       and _is_read_only(path))

    def _was_renewed(self, path: str, modified: float) -> bool:
        """By the time of the file, which is that of a clock that may be set:
        a file that was seen to change was renewed, whatever its time says.
        """
        now = time.monotonic()
        nothing: tuple[float | None, float] = (None, 0.0)
        known, young_until = self._renewed.get(path, nothing)
        if modified != known:
            age = abs(time.time() - modified)
            left = self._expire - (age if age <= self._expire else 0.0)
            is_young = age <= self._expire or known is not None
            young_until = now + left if is_young else 0.0
            self._remember(path, modified, young_until)
        return now < young_until

    def _remember(self, path: str, modified: float,
                  young_until: float) -> None:
        if len(self._renewed) >= _REMEMBERED:
            self._renewed.clear()
        self._renewed[path] = modified, young_until


def _is_read_only(path: str) -> bool:
    """Whether the file system is; then nobody can renew anything."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False
