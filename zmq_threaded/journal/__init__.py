# SPDX-License-Identifier: Apache-2.0
"""Journals: the custody of a process on disk, which outlives the process.

Each driver that keeps its messages on disk has a journal of its own, an
sqlite database in WAL mode, and beside it a file whose lock says that the
owner of the journal lives. A row is written before cast() returns, and is
removed once the message has ended. Before a message is sent the journal
knows to which instance, so that whoever adopts the journal of a process that
died sends the message to the same instance first, which recognises the id.
"""
