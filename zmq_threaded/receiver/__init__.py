# SPDX-License-Identifier: Apache-2.0
"""The receiver of a node: one TCP port, IPC to the services behind it."""
