# SPDX-License-Identifier: Apache-2.0
"""The child process of versions.Peer."""

import json
import sys

import native_threads

native_threads.use_native_threads()

from oslo_config import cfg  # noqa: E402

from tests.support import versions  # noqa: E402


def main(version, role, url, server):
    cfg.CONF([], project='zmq_threaded_tests')
    versions.become(version)
    if role == 'receiver':
        return _receive(versions.settings_of(url))
    party = versions.Party(url, server)
    print('ready', flush=True)
    for line in sys.stdin:
        what, how = json.loads(line)
        print(json.dumps(party.do(what, **how)), flush=True)
    party.end()


def _receive(settings):
    running = versions.run_receiver(settings, settings.ipc_dir)
    print('ready', flush=True)
    sys.stdin.read()
    running.stop()


main(*sys.argv[1:])
