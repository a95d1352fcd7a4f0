# SPDX-License-Identifier: Apache-2.0
"""The command oslo-messaging-zmq, for operators. Each verb is a module."""
