# SPDX-License-Identifier: Apache-2.0
"""The bridge to another driver of oslo.messaging, while a cloud moves.

A process with a bridge listens over zmq and over the other driver, and sends
over one of them. Nothing outside of this package knows of it.
"""
