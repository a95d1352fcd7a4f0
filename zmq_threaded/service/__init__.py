# SPDX-License-Identifier: Apache-2.0
"""The listening side: poller thread, executor, reply thread."""
