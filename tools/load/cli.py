# SPDX-License-Identifier: Apache-2.0
"""The course of a run, from the command line to the exit code."""

import json
import os
import signal
import sys
import threading
import time

from load import errors
from load import options as cli
from load import oslo
from load import progress as displays
from load import report as reports
from load import rounds
from load import tables
from load.contestant import Contestant


def main(arguments):
    """Run the tool; returns its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        options = cli.parse(arguments)
        oslo.configure(options.verbose, warnings_to_stderr=False)
        return _run(options)
    except errors.LoadError as error:
        _say(error)
        return error.exit_code
    except KeyboardInterrupt:
        _say('interrupted')
        return errors.EXIT_INTERRUPTED


def _interrupt(signum, frame):
    raise KeyboardInterrupt


def leave(code):
    """Exit, even if a transport left threads behind that never end."""
    sys.stdout.flush()
    sys.stderr.flush()
    if any(
        thread is not threading.main_thread()
        for thread in threading.enumerate()
    ):
        os._exit(code)
    sys.exit(code)


def _run(options):
    draw = _load_plot() if options.plot else None
    contestants = []
    cores = _pin() if options.pin else ()
    finished = False
    try:
        for entry in options.entries:
            contestants.append(_open(entry, options, cores))
        with displays.make_progress() as progress:
            _start(contestants, options, progress)
            _take_turns(contestants, options, progress)
        finished = True
    finally:
        complaints = _stop(contestants, hurried=not finished)
    for complaint in complaints:
        _say(f'warning: {complaint}')
    return _publish(contestants, options, draw)


def _pin():
    """Keep this process on the first core it may use.

    Threads that come later, and a receiver of the node, stay there too.
    The other cores are returned: the servers get them.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first})
    return others


def _open(entry, options, cores):
    try:
        opened = Contestant(entry, options, cores)
        if entry.kind != 'raw':
            oslo.check_broker(entry.url)
        return opened
    except errors.LoadError as error:
        raise type(error)(f'{entry.name}: {error}') from error


def _start(contestants, options, progress):
    progress.begin('starting servers')
    deadline = time.monotonic() + options.start_timeout
    for contestant in contestants:
        contestant.start_servers()
    for contestant in contestants:
        contestant.connect(deadline)


def _take_turns(contestants, options, progress):
    for number in range(1, options.rounds + 1):
        for contestant in contestants:
            if contestant.trouble is None:
                _take_turn(
                    contestant,
                    f'{contestant.name} {number}/{options.rounds}',
                    progress,
                )


def _take_turn(contestant, label, progress):
    progress.begin(label)
    try:
        result = rounds.run_round(contestant, progress)
    except (errors.ServerDied, errors.ThreadsStuck) as error:
        contestant.trouble = errors.first_line(error)
        progress.say(f'{label}: {error}')
        return
    p50, p99 = (result.latency_ms[level] or 0 for level in ('p50', 'p99'))
    progress.say(
        f'{label}: {result.per_second:,.0f} ops/s, '
        f'p50 {p50:.3g} ms, p99 {p99:.3g} ms'
    )


def _stop(contestants, hurried):
    """Stop everything, without a second interruption; returns complaints."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return [
        complaint
        for contestant in contestants
        for complaint in contestant.stop(hurried)
    ]


def _publish(contestants, options, draw):
    report = reports.make_report(contestants, options)
    to_stdout = options.json == '-'
    tables.print_report(report, sys.stderr if to_stdout else sys.stdout)
    if to_stdout:
        print(json.dumps(report, indent=1))
    elif options.json:
        with open(options.json, 'w', encoding='utf-8') as file:
            json.dump(report, file, indent=1)
    if draw:
        draw(contestants, report, options.plot)
    return 0 if report['sound'] else errors.EXIT_UNSOUND


def _load_plot():
    # Only now: matplotlib takes a second and 30 MB.
    from load import plot
    return plot.draw


def _say(text):
    print(f'rpc_load: {text}', file=sys.stderr, flush=True)
