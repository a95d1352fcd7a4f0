# SPDX-License-Identifier: Apache-2.0
"""Texts that others wrote, made fit for a log line or an exception (pure).

A stranger's text could look like a line of the log, move the cursor of the
terminal in which the log is read, be as long as a message may be, or have
characters that no file can take.
"""

import re
from collections.abc import Callable
from typing import Any

# Characters that a text of one line may have, and a name in it.
LINE, NAME = 1_000, 255
# Control and escape characters, separators of lines, marks that turn the
# direction of reading, and lone surrogates.
_UNFIT = ('\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069'
          '\ud800-\udfff')
_in_a_line = re.compile(f'[{_UNFIT}]').sub
_in_lines = re.compile(f'(?![\n\t])[{_UNFIT}]').sub
_CUT = ' ... (cut)'


def line(text: Any, limit: int = LINE) -> str:
    """A text of one line, cut and escaped.

    :param text: str, or a buffer of bytes that should be UTF-8
    :param limit: characters of the result, before it says that it was cut
    """
    if not isinstance(text, str):
        # No more than can be shown: there may be megabytes of it.
        text = bytes(text[:4 * (limit + 1)]).decode('utf-8', 'replace')
    return _fit(text, limit, _in_a_line)


def lines(text: str, limit: int) -> str:
    """As line(), but newlines and tabs stay."""
    return _fit(text, limit, _in_lines)


def _fit(text: str, limit: int, substitute: Callable[..., str]) -> str:
    fit = substitute(_escaped, text[:limit + 1])
    return fit if len(fit) <= limit else fit[:limit] + _CUT


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode('unicode_escape').decode('ascii')
