# SPDX-License-Identifier: Apache-2.0
"""Messages as each version of the protocol wrote them, frozen for ever.

A directory for each version, made once by that version with

    tools/venv python -m tests.recordings.samples

and never changed afterwards; tests/unit/test_recordings.py decodes them all.
"""
