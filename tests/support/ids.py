# SPDX-License-Identifier: Apache-2.0
"""Message ids of nobody in particular."""

from zmq_threaded import wire

new_id = wire.id_maker()
MAKER = wire.maker(new_id())
