"""What a terminal shows: text from models and endpoints made harmless, tables, numbers."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LEAST_COLUMNS = 72

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


def open_console() -> Console:
    """Standard output for tables of figures: a terminal of fewer columns than they take wraps their
    lines, where narrower columns would lose the names.
    """
    from rich.console import Console

    console = Console()
    return console if console.width >= LEAST_COLUMNS else Console(width=LEAST_COLUMNS)


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


def number(value: float | None, form: str = ".2f") -> str:
    """A number in a format of `format`, or a dash where there is none.

    >>> number(0.5), number(0.5, "+.1f"), number(None)
    ('0.50', '+0.5', '–')
    """
    return "–" if value is None else format(value, form)


def count(n: int, noun: str, plural: str = "") -> str:
    """A number of things.

    >>> count(1, "request"), count(2000, "request"), count(0, "reply", "replies")
    ('1 request', '2,000 requests', '0 replies')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def interval(low: float | None, high: float | None, form: str = ".2f") -> str:
    """Both bounds of an interval, or a dash where one is missing.

    >>> interval(0.25, 0.75), interval(None, 0.75)
    ('0.25 to 0.75', '–')
    """
    return "–" if low is None or high is None else f"{low:{form}} to {high:{form}}"


def difference(value: float | None, low: float | None, high: float | None) -> str:
    """A difference with its interval, all with their signs.

    >>> difference(0.1, -0.2, 0.4)
    '+0.10 (-0.20 to +0.40)'
    """
    return f"{number(value, '+.2f')} ({interval(low, high, '+.2f')})"


def warn(text: str) -> None:
    """One line on standard error, at once."""
    sys.stderr.write(f"warning: {visible(text)}\n")
