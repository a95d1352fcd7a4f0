# SPDX-License-Identifier: Apache-2.0
"""Who may talk to whom over TCP: keys, and which of them are trusted."""
