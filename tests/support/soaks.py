# SPDX-License-Identifier: Apache-2.0
"""What the plain run of the tests does for a short time or in part, and the
soak (pytest -m soak) or the long runs (pytest -m long) at full length.
"""

import os

import pytest


def sizes(plain, soak, variable='', mark=pytest.mark.soak):
    """Parameters for a test: how long, or how often.

    :param variable: of the environment; its number replaces both
    :param mark: pytest.mark.long for what takes tens of minutes
    """
    if variable in os.environ:
        return [int(os.environ[variable])]
    return [plain, pytest.param(soak, marks=mark)]


def pairs(names, values, shift=0):
    """Parameters of two: each name with each value in the soak and the plain
    run together, and with one of them in the plain run.

    :param names: those that pytest.param() made, of one value each
    :param shift: another one has the plain run take other values
    """
    return [_pair(name, value, (row + column + shift) % len(values) == 0)
            for row, name in enumerate(names)
            for column, value in enumerate(values)]


def _pair(name, value, is_plain):
    soak = () if is_plain else (pytest.mark.soak,)
    return pytest.param(*name.values, value, marks=(*name.marks, *soak))
