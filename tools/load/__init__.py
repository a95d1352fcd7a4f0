# SPDX-License-Identifier: Apache-2.0
"""The parts of rpc_load.py, a load tool for oslo.messaging transports."""
