# SPDX-License-Identifier: Apache-2.0
"""What an operator wants dropped from a journal.

If the owner of the journal lives he is asked to do it, for he has the
messages in memory too. Otherwise it is done at once.
"""

import json
import sqlite3
from collections.abc import Collection
from urllib import parse

from zmq_threaded import topic as topics
from zmq_threaded.journal import rows


def matches(topic: topics.Topic, name: str, pool: str | None) -> bool:
    """Whether messages of a topic are meant.

    :param name: of the topic; for notifications with its priority
    :param pool: only the copies of this pool; None for all of the topic
    """
    kind, _, *parts = topic.key.split(':')
    parts = [parse.unquote(part, errors='surrogatepass') for part in parts]
    if pool is None:
        return parts[0] == name
    return kind == 'pool' and parts == [name, pool]


def ask(connection: sqlite3.Connection, name: str, pool: str | None) -> None:
    """Ask the owner of a journal."""
    connection.execute('INSERT INTO drops VALUES(?, ?)',
                       (json.dumps(name), json.dumps(pool)))


def asked(connection: sqlite3.Connection) -> list[tuple[str, str | None]]:
    """What the owner was asked for: (name, pool or None)."""
    return [(json.loads(name), json.loads(pool)) for name, pool
            in connection.execute('SELECT topic, pool FROM drops')]


def done(connection: sqlite3.Connection) -> None:
    """The owner has done what he was asked for."""
    connection.execute('DELETE FROM drops')


def drop(connection: sqlite3.Connection, name: str, pool: str | None,
         spare: Collection[int] = ()) -> None:
    """Remove messages, within a transaction; and with a pool what is known of
    that pool.

    :param spare: keys of messages that are not removed here
    """
    run = connection.execute
    numbers = json.dumps([
        number for number, text in run('SELECT number, topic FROM topics')
        if matches(rows.topic_of(text), name, pool)])
    where = ('topic IN (SELECT value FROM json_each(:numbers)) AND '
             '{key} NOT IN (SELECT value FROM json_each(:spare))')
    values = {'numbers': numbers, 'spare': json.dumps(list(spare))}
    if pool is None:
        gone = [key for key, in run(
            'SELECT key FROM messages WHERE ' + where.format(key='key'),
            values)]
        run('DELETE FROM parts WHERE message IN '
            '(SELECT value FROM json_each(?))', (json.dumps(gone),))
    else:
        of_pool = [key for key, in run(
            'SELECT DISTINCT message FROM parts WHERE '
            + where.format(key='message'), values)]
        run('DELETE FROM parts WHERE ' + where.format(key='message'), values)
        left = {key for key, in run('SELECT message FROM parts')}
        gone = [key for key in of_pool if key not in left]
        forget_pool(connection, name, pool)
    run('DELETE FROM messages WHERE key IN (SELECT value FROM json_each(?))',
        (json.dumps(gone),))


def forget_pool(connection: sqlite3.Connection, name: str,
                pool: str) -> None:
    """Know nothing of a pool any more."""
    for text, in connection.execute(
            'SELECT DISTINCT topic FROM pools').fetchall():
        if matches(rows.topic_of(text), name, None):
            connection.execute('DELETE FROM pools WHERE topic = ? AND '
                               'pool = ?', (text, json.dumps(pool)))
