"""Which samples of a suite a run takes, and what it must say about those it does not.

A sample that lacks something which only the user has (a reference, a context) stops the run, unless
the user asks for the complete ones alone; then the others are counted and named, never replaced.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from r2w_eval.errors import DataError
from r2w_eval.recorded import RecordedResponses
from r2w_eval.types import Sample

NAMED = 20


@dataclass(frozen=True)
class Selection:
    """The rules by which a run takes samples, in this order."""

    answered_by: RecordedResponses | None = None
    only_complete: bool = False
    limit: int | None = None

    def take(self, samples: Iterable[Sample]) -> Iterable[Sample]:
        """The samples of the run, lazily."""
        wanted = (s for s in samples if self.answered_by is None or self.answered_by.find(s))
        complete = (s for s in wanted if not (self.only_complete and s.lacks))
        return itertools.islice(complete, self.limit)


def check_complete(suite: str, samples: Iterable[Sample]) -> None:
    """Raises DataError when a sample of the run lacks what the user was to give."""
    lacking = [sample for sample in samples if sample.lacks]
    if lacking:
        ids = name_some([sample.id for sample in lacking])
        raise DataError(
            f"{suite}: --{lacking[0].lacks} has nothing for {len(lacking)} samples: {ids}. "
            f"Add them, or leave these samples out with --only-complete"
        )


def describe_left_out(samples: Iterable[Sample]) -> list[str]:
    """What `--only-complete` leaves out, for the results; nothing if nothing is."""
    lacking = [sample for sample in samples if sample.lacks]
    if not lacking:
        return []
    ids = name_some([sample.id for sample in lacking])
    return [f"{len(lacking)} samples left out that --{lacking[0].lacks} has nothing for: {ids}"]


def describe_recorded(samples: Iterable[Sample], recorded: RecordedResponses) -> list[str]:
    """Which samples of one suite the file of answers has nothing for."""
    answered = {sample.id: bool(recorded.find(sample)) for sample in samples}
    missing = [sample_id for sample_id, found in answered.items() if not found]
    if not missing:
        return []
    names = name_some(missing)
    return [f"--responses has no answer for {len(missing)} of {len(answered)} samples: {names}"]


def describe_strays(samples: Iterable[Sample], recorded: RecordedResponses) -> list[str]:
    """Which answers of the file belong to no sample of any suite of the run."""
    strays = recorded.texts.keys() - {recorded.key(sample) for sample in samples}
    if not strays:
        return []
    return [f"--responses has {len(strays)} answers to no sample: {name_some(sorted(strays))}"]


def name_some(names: Sequence[str]) -> str:
    """The first names, and how many more there are.

    >>> name_some(["a", "b"])
    'a, b'
    """
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
