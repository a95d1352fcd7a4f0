# SPDX-License-Identifier: Apache-2.0
"""Small disks that get full, each in a mount namespace of its own."""

import contextlib
import subprocess
import sys

import oslo_messaging

from tests.support import processes


def run(module, *arguments, seconds):
    """Run a module of tests.support that mounts one; as root.

    :returns: subprocess.CompletedProcess
    """
    return subprocess.run(
        ['unshare', '--mount', sys.executable, '-m',
         f'tests.support.{module}', *arguments], text=True,
        capture_output=True, timeout=seconds, env=processes.ENVIRONMENT)


def mount(directory, option):
    """:param option: of tmpfs, for its size"""
    subprocess.run(['mount', '-t', 'tmpfs', '-o', option, 'tmpfs', directory],
                   check=True)


def fill(path):
    """Use up all bytes that are left, by a file."""
    with open(path, 'wb', buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def cast_until_it_fails(client, values):
    """:returns: how many were taken, and why the next one was not"""
    for count, value in enumerate(values):
        try:
            client.cast({}, 'note', value=value)
        except oslo_messaging.MessageDeliveryFailure as error:
            return count, str(error)
    raise AssertionError('there was room for all')
