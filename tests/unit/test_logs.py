# SPDX-License-Identifier: Apache-2.0
"""Handlers of logging hold up no thread of the driver."""

import logging
import threading

import pytest

from tests.support import waiting
from zmq_threaded import logs


@pytest.fixture
def logger():
    """A logger of ours and of the standard library, of the same name."""
    name = 'test.logs'
    standard = logging.getLogger(name)
    standard.setLevel(logging.INFO)
    standard.propagate = False
    yield logs.get(name), standard
    standard.handlers.clear()
    logs.flush()


class Blocking(logging.Handler):
    def __init__(self):
        super().__init__()
        self.go_on = threading.Event()
        self.records = []
        self.threads = []

    def emit(self, record):
        self.threads.append(threading.current_thread().name)
        assert self.go_on.wait(10)
        self.records.append(record)


def in_thread(name, run):
    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_a_handler_that_blocks_does_not_hold_up_a_thread_of_the_driver(logger):
    log, standard = logger
    handler = Blocking()
    standard.addHandler(handler)

    in_thread('zmq-outbox', lambda: log.warning('a %s', 'text'))
    assert not handler.records
    handler.go_on.set()
    waiting.until(lambda: handler.records)

    record, = handler.records
    assert record.getMessage() == 'a text'
    assert record.threadName == 'zmq-outbox'
    assert record.pathname == __file__
    assert handler.threads == ['zmq-log']


def test_other_threads_log_themselves(logger):
    log, standard = logger
    handler = Blocking()
    handler.go_on.set()
    standard.addHandler(handler)

    in_thread('of-the-application', lambda: log.warning('a %s', 'text'))

    assert handler.records[0].pathname == __file__
    assert handler.threads == ['of-the-application']


def test_what_is_below_the_level_is_not_written(logger):
    log, standard = logger
    handler = Blocking()
    handler.go_on.set()
    standard.addHandler(handler)

    in_thread('zmq-outbox', lambda: log.debug('nothing'))
    in_thread('zmq-outbox', lambda: log.info('something'))
    logs.flush()

    assert [each.getMessage() for each in handler.records] == ['something']


def test_an_exception_is_kept_as_text(logger):
    log, standard = logger
    handler = Blocking()
    handler.go_on.set()
    standard.addHandler(handler)

    def run():
        try:
            raise ValueError('the cause')
        except ValueError:
            log.exception('it failed')

    in_thread('zmq-outbox', run)
    logs.flush()

    record, = handler.records
    assert record.exc_info is None
    assert 'ValueError: the cause' in logging.Formatter().format(record)


def test_a_handler_that_logs_itself_does_not_loop_in_the_thread(logger):
    log, standard = logger
    depth = []

    class Nested(logging.Handler):
        def emit(self, record):
            depth.append(record.getMessage())
            if len(depth) < 5:
                log.warning('again')

    standard.addHandler(Nested())
    in_thread('zmq-outbox', lambda: log.warning('first'))
    waiting.until(lambda: len(depth) == 5)

    assert depth == ['first'] + 4 * ['again']


def test_records_that_are_too_many_are_counted(logger, monkeypatch):
    log, standard = logger
    monkeypatch.setattr(logs, '_LIMIT', 3)
    handler = Blocking()
    standard.addHandler(handler)

    in_thread('zmq-outbox', lambda: [log.warning('%d', number)
                                     for number in range(10)])
    handler.go_on.set()
    logs.flush()

    texts = [record.getMessage() for record in handler.records]
    assert texts[:3] == ['0', '1', '2']
    assert int(texts[-1].split()[0]) == 10 - (len(texts) - 1)
    assert 'were lost' in texts[-1]


def test_the_thread_ends_when_there_is_nothing_to_write(logger, monkeypatch):
    log, standard = logger
    monkeypatch.setattr(logs, '_IDLE', 0.05)
    handler = Blocking()
    handler.go_on.set()
    standard.addHandler(handler)

    def is_running():
        return any(thread.name == 'zmq-log'
                   for thread in threading.enumerate())

    waiting.until(lambda: not is_running())
    for number in range(3):
        in_thread('zmq-outbox', lambda: log.warning('text'))
        waiting.until(lambda: len(handler.records) == number + 1)
        waiting.until(lambda: not is_running())


def test_flush_waits_for_the_record_that_is_being_written(logger):
    log, standard = logger
    handler = Blocking()
    standard.addHandler(handler)
    in_thread('zmq-outbox', lambda: log.info('something'))
    waiting.until(lambda: handler.threads)      # taken out, and not written

    logs.flush(0.05)
    assert not handler.records
    handler.go_on.set()
    logs.flush(10)
    assert handler.records


def test_flush_starts_no_thread_when_there_is_nothing_to_write(logger):
    waiting.until(lambda: 'zmq-log' not in {
        thread.name for thread in threading.enumerate()})
    logs.flush(0)
    assert 'zmq-log' not in {thread.name for thread in threading.enumerate()}


def test_flush_after_each_record_finds_it_written(logger, eager_switching):
    log, standard = logger
    handler = Blocking()
    handler.go_on.set()
    standard.addHandler(handler)

    def run():
        for number in range(1, 301):
            log.info('something')
            logs.flush(10)
            assert len(handler.records) == number

    in_thread('zmq-outbox', run)
    assert len(handler.records) == 300


def test_without_a_thread_to_be_had_no_thread_of_the_driver_runs_a_handler(
        logger, monkeypatch):
    log, standard = logger
    handler = Blocking()
    handler.go_on.set()
    standard.addHandler(handler)
    waiting.until(lambda: 'zmq-log' not in {
        thread.name for thread in threading.enumerate()})

    def fail(*args):
        raise RuntimeError("can't start new thread")
    start = threading.Thread.start
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, 'start', lambda thread: (
            fail() if thread.name == 'zmq-log' else start(thread)))
        in_thread('zmq-outbox', lambda: log.warning('first'))
        assert not handler.threads
        in_thread('of-the-application', lambda: log.warning('second'))
        assert handler.threads == ['of-the-application'] * 2
        in_thread('zmq-outbox', lambda: log.warning('third'))
    in_thread('zmq-outbox', lambda: log.warning('fourth'))
    waiting.until(lambda: len(handler.threads) == 4)
    assert handler.threads[2:] == ['zmq-log'] * 2
