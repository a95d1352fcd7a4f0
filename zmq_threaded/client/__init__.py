# SPDX-License-Identifier: Apache-2.0
"""The sending side: calls on REQ sockets, everything else on the outbox."""
