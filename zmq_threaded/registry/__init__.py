# SPDX-License-Identifier: Apache-2.0
"""The registry of listening instances, on tooz group membership.

A group is the key of a Topic. A member is one process, with one connection
and one life for all that it runs: its capabilities in a group are the record
of its instances there.

    matchmaker.py   look-ups and registrations   member.py    what tooz is told
    patience.py     the thread that may block    engines.py   what differs
    record.py       instances, written down      reading.py   records, as read
    files.py        the embedded engine          folders.py   its directories
    stamps.py       its clock                    ages.py      who is alive
    troubles.py     errors, in words
"""
