# SPDX-License-Identifier: Apache-2.0
"""The command oslo-messaging-zmq, for operators. Each verb is a module."""

import warnings

# futurist imports eventlet, if there is one, and that warns of itself: in the
# middle of what the operator came for.
warnings.filterwarnings('ignore', module='futurist')
