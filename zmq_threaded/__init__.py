# SPDX-License-Identifier: Apache-2.0
"""A ZeroMQ driver for oslo.messaging on plain threads (``zmq://``)."""
