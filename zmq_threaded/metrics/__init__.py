# SPDX-License-Identifier: Apache-2.0
"""What the processes of a node have counted and measured, for Prometheus."""
