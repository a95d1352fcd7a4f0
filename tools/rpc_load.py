#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Load tool for oslo.messaging transports; see --help."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def _main():
    try:
        # Takes half a second, in which an interruption is as welcome as later.
        from load import cli
        return cli.leave(cli.main(sys.argv[1:]))
    except ImportError as error:
        print(
            f"rpc_load: {error}; try: pip install 'zmq-threaded[load]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print('rpc_load: interrupted', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(_main())
