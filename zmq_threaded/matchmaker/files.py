# SPDX-License-Identifier: Apache-2.0
"""tooz's file driver, and what it lacks: changing a record in place."""

import datetime
import os

from tooz import coordination
from tooz import utils as tooz_utils
from tooz.drivers import file


class Driver(file.FileDriver):
    """Replaces a record at once: nobody finds the group without it.

    Leaving the group and joining it again cannot be made one step by a lock
    around both: POSIX drops all locks that a process has on a file as soon as
    it closes any descriptor of it, which tooz does after each of the two.
    """

    def update_capabilities(self, group_id, capabilities):
        return file.FileFutureResult(self._executor.submit(
            self._replace, group_id, capabilities))

    def _replace(self, group_id, capabilities):
        name = f'{self._safe_member_id}.raw'
        path = os.path.join(self._group_dir,
                            self._make_filesystem_safe(group_id), name)
        # Not made by tempfile, for others than its owner are to read it.
        new = os.path.join(self._tmpdir, name)
        with self._driver_lock:
            if not os.path.isfile(path):
                raise coordination.MemberNotJoined(group_id, self._member_id)
            with open(new, 'wb') as record:
                record.write(self._record(capabilities))
            os.replace(new, path)

    def _record(self, capabilities):
        """As join_group() writes it, for the member ids that are bytes."""
        return tooz_utils.dumps({
            'capabilities': capabilities, 'member_id': self._member_id,
            'joined_on': datetime.datetime.now(), 'encoded': False})
