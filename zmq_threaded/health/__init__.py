# SPDX-License-Identifier: Apache-2.0
"""What a process finds out about itself: whether others can reach it."""
