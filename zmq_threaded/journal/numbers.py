# SPDX-License-Identifier: Apache-2.0
"""The numbers that stand for topics and instances in the rows of a journal."""

import sqlite3

from zmq_threaded import topic as topics
from zmq_threaded.journal import kept as keeping
from zmq_threaded.journal import rows
from zmq_threaded.registry import record


class Numbers:
    """Gives numbers, within the transactions of a journal.

    Thread: journal.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._topics: dict[str, int] = {}
        self._instances: dict[bytes, int] = {}

    def forget(self) -> None:
        """A transaction was taken back, and numbers may have been with it."""
        self._topics.clear()
        self._instances.clear()

    def of_topic(self, topic: topics.Topic) -> int:
        """The number of a topic, a new one if it has none."""
        number = self._topics.get(topic.key)
        if number is None:
            number = self._topics[topic.key] = self._number(
                'topics', 'topic', rows.text_of(topic))
        return number

    def of_instance(self, instance: record.Instance | None) -> int | None:
        """The number of an instance, a new one if it has none; None for
        None.
        """
        if instance is None:
            return None
        number = self._instances.get(instance.id)
        if number is None:
            number = self._instances[instance.id] = self._number(
                'instances', 'record', keeping.pack(instance))
        return number

    def _number(self, table, column, value):
        run = self._connection.execute
        found = run(f'SELECT number FROM {table} WHERE {column} = ?',
                    (value,)).fetchone()
        return found[0] if found else run(
            f'INSERT INTO {table}({column}) VALUES(?)', (value,)).lastrowid
