# SPDX-License-Identifier: Apache-2.0
"""Which services have a Unix socket in a directory."""

from zmq_threaded.receiver import address


def test_ids_of_the_sockets_that_are_there(tmp_path):
    for name in ('00ff.sock', 'receiver-1.sock', '0102.closing', 'registry'):
        (tmp_path / name).touch()
    assert address.listed(str(tmp_path)) == {b'\x00\xff'}


def test_a_directory_that_is_gone_has_none(tmp_path):
    assert address.listed(str(tmp_path / 'gone')) == set()
    (tmp_path / 'file').touch()
    assert address.listed(str(tmp_path / 'file')) == set()
