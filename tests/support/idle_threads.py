# SPDX-License-Identifier: Apache-2.0
"""Importing this lets threads end soon that have nothing to do.

Each test waits for them, a thousand times in a run. An idle thread of
futurist's ThreadPoolExecutor looks once a second whether the executor was shut
down, and the thread that writes the log stays for a second.
"""

import futurist

from zmq_threaded import logs

# Seconds. futurist has no setting for it.
futurist._thread.ThreadWorker.MAX_IDLE_FOR = 0.1
logs._IDLE = 0.1
