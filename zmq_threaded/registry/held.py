# SPDX-License-Identifier: Apache-2.0
"""Whether a folder was removed, and perhaps made again."""

import os
import weakref
from collections.abc import Callable


class Held:
    """Holds a folder open, to see whether it is still the one that has this
    name. What is held open keeps its number, although somebody removes it.

    Thread: registry, or its engine's thread; one at a time.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._release: Callable[[], object] | None = None

    def hold(self) -> None:
        """Hold the folder that has the name now, if there is one."""
        self.release()
        try:
            self._descriptor = os.open(self._path, os.O_PATH | os.O_DIRECTORY
                                       | os.O_CLOEXEC)
        except OSError:
            return
        # In a forked child, too, which only drops what its parent had.
        self._release = weakref.finalize(self, os.close, self._descriptor)

    def release(self) -> None:
        """Hold nothing any more; twice is fine."""
        if self._release:
            self._release()
            self._release = None

    def is_in_place(self) -> bool:
        """Whether the folder that is held has the name."""
        try:
            return self._release is not None and os.path.samestat(
                os.fstat(self._descriptor), os.stat(self._path))
        except OSError:
            return False
