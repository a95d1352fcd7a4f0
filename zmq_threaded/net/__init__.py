# SPDX-License-Identifier: Apache-2.0
"""What guards the way between processes: addresses, descriptors, files."""
