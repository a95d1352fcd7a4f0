# SPDX-License-Identifier: Apache-2.0
"""A server process of the load tool, started by load.processes.

Its control channel is its stdin and stdout, one JSON object a line, so that
the counting does not depend on the transport under test. The first line in
says what to serve; the first line out says {"ready": true} or {"error": text}.
Then each {"do": "status" | "ledger" | "stop"} gets one answer. At end of file
it stops too: nothing survives a client that was killed.
"""

import json
import os
import sys
import threading

# Python put the folder of this file first, where its names would hide others'
# modules.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from load import errors  # noqa: E402
from load import receiver as receivers  # noqa: E402
from load import resources  # noqa: E402

_ORPHAN_SECONDS = 5


def main():
    """Serve until told to stop."""
    answers = _take_over_stdout()
    spec = json.loads(sys.stdin.readline())
    if spec.get('core') is not None:
        os.sched_setaffinity(0, {spec.get('core')})
    receiver = receivers.Receiver(spec['token'], spec['size'])
    try:
        service = _make_service(spec, receiver)
        service.start()
    except Exception as error:
        _answer(answers, {'error': errors.first_line(error)})
        return errors.EXIT_START
    _answer(answers, {'ready': True})
    return _obey(answers, service, receiver)


def _take_over_stdout():
    """Keep stdout for the answers; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), 'w', encoding='ascii')
    os.dup2(2, 1)
    return answers


def _make_service(spec, receiver):
    if spec['kind'] == 'raw':
        from load import raw
        return raw.RawServer(spec, receiver)
    from load import oslo
    oslo.configure(spec['verbose'], warnings_to_stderr=True)
    return oslo.make_server(spec, receiver)


def _obey(answers, service, receiver):
    for line in iter(sys.stdin.readline, ''):
        command = json.loads(line)['do']
        if command == 'stop':
            service.stop()
            # Only now is it certain that nothing more will arrive.
            _answer(answers, _everything(receiver))
            return 0
        _answer(
            answers,
            _status(receiver)
            if command == 'status'
            else _everything(receiver),
        )
    _stop_as_orphan(service)
    return errors.EXIT_INTERRUPTED


def _stop_as_orphan(service):
    guard = threading.Timer(
        _ORPHAN_SECONDS, os._exit, [errors.EXIT_INTERRUPTED]
    )
    guard.daemon = True
    guard.start()
    service.stop()


def _status(receiver):
    return receiver.status() | resources.sample()


def _everything(receiver):
    return _status(receiver) | {'ledger': receiver.ledger.export()}


def _answer(answers, message):
    answers.write(json.dumps(message) + '\n')
    answers.flush()


if __name__ == '__main__':
    sys.exit(main())
