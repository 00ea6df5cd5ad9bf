"""Every error a user can cause, as one tree.

    R2WError                    exit code 1 unless a subclass says otherwise
    ├── UsageError              2  a flag, a name or a file that cannot be used
    │   ├── UnknownName         2  no such suite, model, judge ...; names the nearest ones
    │   ├── DataError           2  benchmark data missing (DataAbsent) or altered
    │   └── IdentityMismatch    2  two things that may not be mixed or compared
    ├── CoverageTooLow          3  the run finished, but lost too much
    ├── BudgetReached           4  stopped at --max-cost, resumable
    └── EndpointDown            1  an endpoint refuses all work (wrong key, dead host)
        └── EndpointSilent      1  it answers nobody, and may come back

A message names the value, what was allowed, and the next command to try.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_NAMED = 60


class R2WError(Exception):
    """Base of all errors that are shown without a traceback."""

    exit_code = 1


class UsageError(R2WError):
    """Something the user gave cannot be used."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is not among the known ones; suggests the nearest.

    >>> str(UnknownName("--tasks", "writtingbench", "suite", ["writingbench"], "r2w-eval list"))
    "--tasks 'writtingbench': no such suite. Did you mean writingbench? Known: writingbench. \
Try: r2w-eval list"
    """

    def __init__(self, flag: str, name: str, kind: str, known: Iterable[str], hint: str) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        guess = f" Did you mean {' or '.join(close)}?" if close else ""
        more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
        listed = ", ".join(known[:MOST_NAMED]) + more
        super().__init__(
            f"{flag} {name[:200]!r}: no such {kind}.{guess} Known: {listed}. Try: {hint}"
        )


class DataError(UsageError):
    """A data file is missing, or its content is not the pinned one."""


class DataAbsent(DataError):
    """A data file is not here and could not be fetched."""


class IdentityMismatch(UsageError):
    """Two runs, or a run and its folder, differ in something that changes scores."""


class CoverageTooLow(R2WError):
    """The run is complete, but too few verdicts are usable."""

    exit_code = 3


class BudgetReached(R2WError):
    """Stopped at the cost cap; the same command with a higher cap goes on."""

    exit_code = 4


class EndpointDown(R2WError):
    """An endpoint refuses every request, so that sending more would be waste."""


class EndpointSilent(EndpointDown):
    """An endpoint gives no usable reply to anybody; it may come back."""
