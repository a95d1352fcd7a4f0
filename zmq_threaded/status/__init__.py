# SPDX-License-Identifier: Apache-2.0
"""What processes tell of themselves, and what is wrong with them."""
