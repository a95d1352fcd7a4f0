# SPDX-License-Identifier: Apache-2.0
"""What rpc_load.py --help says before and after its options."""

DESCRIPTION = """\
Load a transport of oslo.messaging and count what it loses.

Starts server processes for each URL, sends from threads of this process, and
prints operations a second, latencies and what was lost, duplicated, answered
wrongly or failed. Several URLs take turns, round by round, and are compared
as ratios. Name a contestant with NAME=URL. Options of a driver go into the
query of its URL. A zmq:// URL with rpc_zmq_topology=receiver gets a receiver
process of its own, on a free port and in an IPC directory of its own unless
the URL names them."""

EPILOG = """\
figures:
  Calls: latency is the round trip, ops/s counts completed calls. Casts and
  fanouts: latency is the time spent in cast(), and delivered/s reaches from
  the first send to the last arrival (fanout: arrivals at all servers
  together). Failed operations have no latency. Median and range are over the
  rounds. RSS and open files are those after the first warm-up and at the end.
  CPU per operation is that of this process and of its servers; a broker's or
  receiver's own is not in it. Operations of the warm-up are checked, but not
  timed. One that raised an exception is failed, and never lost.

exit code:
  0 all arrived once and came back right   1 lost, duplicated, wrong or failed
  2 usage or URL                           130 interrupted
  3 a server did not start or was not reached

examples:
  rpc_load.py                                 zmq://, calls, about ten seconds
  rpc_load.py --threads 32 --size 64          small calls from many threads
  rpc_load.py zmq:// rabbit://guest:guest@127.0.0.1:5672/ --plot compare.png
  rpc_load.py zmq:// --raw --threads 1        what oslo.messaging costs
  rpc_load.py --mode fanout --servers 3
  rpc_load.py --threads 32 --count 1000000 --json soak.json
  rpc_load.py --baseline direct direct=zmq:// \\
      'receiver=zmq://?rpc_zmq_topology=receiver'
  rpc_load.py --baseline one one=zmq:// \\
      two='zmq://?rpc_zmq_ipc_dir=/dev/shm/x'"""
