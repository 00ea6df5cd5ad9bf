"""Text from models and endpoints in a terminal: no order to the terminal, no markup of ours."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

# all but tab and newline, and the marks that turn the direction of writing
_ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""The text with a mark for every character that could steer a terminal.

    >>> visible("a\x1b[2Jb\n")
    'a�[2Jb\n'
    """
    return _ORDERS.sub("\ufffd", text)


def escape(text: str) -> str:
    r"""The text as rich shows it: visible, brackets and all.

    >>> escape("[red]a\x1b")
    '\\[red]a�'
    """
    from rich import markup

    return markup.escape(visible(text))


def plain_table(title: str = "") -> Table:
    """A table in the one style of this program; the title is shown as it is."""
    from rich import box
    from rich.table import Table

    return Table(
        title=escape(title) or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        # two blanks between columns: eight columns of figures fit 80
        padding=(0, 1, 0, 0),
    )


def warn(text: str) -> None:
    """One line on standard error, at once."""
    sys.stderr.write(f"warning: {visible(text)}\n")
