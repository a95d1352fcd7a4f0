# SPDX-License-Identifier: Apache-2.0
"""The registry of listening instances, on tooz group membership.

A group is the key of a Topic. A member is one process, with one connection
and one life for all that it runs: its capabilities in a group are the record
of its instances there.

    registry.py        the thread that talks to the registry, for one driver
    look_ups.py        which topics it looks up, and when
    registrations.py   what it has registered, and renews
    operations.py      how it leaves alone a registry that fails
    cache.py           the snapshot from which senders choose
    cached.py          what the cache knows of one topic
    avoided.py         who is passed over
    vanished.py        who was listed a moment ago

    store.py           look-ups and registrations, whatever the engine
    member.py          what tooz is told
    session.py         one life of this process, and how engines differ
    patience.py        the thread that may block
    engines.py         how each engine is opened
    notices.py         what an engine tells of changes
    redis_notices.py   how redis tells it
    etcd_notices.py    how etcd does
    zookeeper_notices.py  how zookeeper does
    record.py          instances, written down
    reading.py         records, as they are read
    shared_facts.py    what processes tell of themselves
    troubles.py        errors, in words
    registry_url.py    from what operators write to a URL of tooz
    tooz_url.py        what a URL of tooz says

    files.py           the embedded engine
    record_files.py    its files
    folders.py         its folders
    held.py            whether they were removed
    folder_notices.py  which of its groups have changed
    stamps.py          its clock
    ages.py            who is alive
    sweep.py           what killed processes left
"""
