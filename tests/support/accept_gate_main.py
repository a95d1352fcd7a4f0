# SPDX-License-Identifier: Apache-2.0
"""A bare ROUTER in a process that uses up its descriptors.

Arguments: path, limit. It says 'full', and frees them when it reads a line.
"""

import os
import resource
import sys

import zmq

from zmq_threaded.net import binding


def main(path, limit):
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    binding.bind_ipc(router, path)
    held = []
    try:
        while True:
            held.append(os.open('/dev/null', os.O_RDONLY))
    except OSError:
        print('full', flush=True)
    sys.stdin.readline()
    for each in held:
        os.close(each)
    sys.stdin.read()
    binding.unbind_ipc(path)
    router.close(linger=0)
    context.term()


main(*sys.argv[1:])
