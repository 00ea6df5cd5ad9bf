"""Which samples of a suite a run takes, and what it reports about the others.

A sample that lacks something which only the user has (a reference, a context) stops the run, unless
the user asks for the complete ones alone; then the others are counted and named, never replaced.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2w_eval.errors import DataError, UnknownName, UsageError
from r2w_eval.hashing import content_hash
from r2w_eval.records.recorded import RecordedResponses
from r2w_eval.types import Sample

NAMED = 20
GOLDEN_SECTION = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Selection:
    """The rules by which a run takes samples, in this order.

    `ids` are ID or SUITE:ID; None stands for all samples. Whatever the rules, the samples keep
    the order of their file, so that the same samples are the same items however they were chosen.
    """

    ids: Collection[str] | None = None
    answered_by: RecordedResponses | None = None
    only_complete: bool = False
    limit: int | None = None

    def named(self, samples: Iterable[Sample]) -> Iterable[Sample]:
        """The samples that `ids` names, lazily."""
        ids = self.ids
        return (s for s in samples if ids is None or not names_of(s).isdisjoint(ids))

    def take(self, samples: Iterable[Sample]) -> Iterable[Sample]:
        """The samples of the run, lazily."""
        named = self.named(samples)
        wanted = (s for s in named if self.answered_by is None or self.answered_by.find(s))
        complete = (s for s in wanted if not (self.only_complete and s.lacks))
        return itertools.islice(complete, self.limit)

    def drawn(self, samples: Iterable[Sample], seed: int, category: str) -> Selection:
        """The same rules with `limit` samples drawn by `seed` instead of the first."""
        every = replace(self, limit=None)
        order = shuffle(every.take(samples), seed, category)
        return replace(every, ids=frozenset(order[: self.limit]))


def names_of(sample: Sample) -> frozenset[str]:
    """The names under which `--ids` finds a sample: ID and SUITE:ID."""
    return frozenset((sample.id, f"{sample.task}:{sample.id}"))


def shuffle(samples: Iterable[Sample], seed: int, category: str) -> list[str]:
    """Ids in an order drawn by `seed`, such that every prefix holds the strata in proportion.

    A stratum is a language within a category; `category` names the entry of `meta`, "" for none.
    The ids are sorted by stratum, shuffled within each, and visited in the order of a golden-ratio
    sequence (k * golden ratio mod 1), rotated by an offset drawn from `seed`. Such a sequence fills
    the line evenly at every length: among up to 40 ids each stratum has its share to within 1.75
    ids, and every id is equally likely to be included. All draws are hashes of seed and id, so that
    the order depends on neither the model, the order of the file nor the number of ids taken.

    >>> from r2w_eval.types import Message
    >>> ask = (Message("user", "Write."),)
    >>> samples = [Sample("s", f"{i % 3}-{i}", ask, meta={"kind": i % 3}) for i in range(9)]
    >>> "".join(name[0] for name in shuffle(samples, 0, "kind"))
    '210102102'
    """
    circle = sorted(
        (str(s.meta.get(category, "")), s.language, content_hash([seed, s.id]), s.id)
        for s in samples
    )
    turn = int(content_hash([seed], 13), 16)
    steps = sorted(range(len(circle)), key=lambda step: step * GOLDEN_SECTION % 1)
    places = sorted(range(len(circle)), key=steps.__getitem__)
    return [circle[(place + turn) % len(circle)][-1] for place in places]


def read_ids(given: Iterable[str]) -> tuple[str, ...]:
    """Ids of comma lists and of files (`@FILE`), each once, in order. Raises UsageError."""
    found = [name for text in given for name in _read_ids(text.strip())]
    if given and not found:
        raise UsageError(
            f"--ids {', '.join(given)!r:.200}: no id. Expected ID,ID,... or @FILE with one id a "
            f"line. Try: r2w-eval list --ids SUITE"
        )
    return tuple(dict.fromkeys(found))


def _read_ids(text: str) -> Iterator[str]:
    """Ids of one value of `--ids`; in a file only the text before the first tab of a line counts,
    since `list --ids` writes more columns.
    """
    if not text.startswith("@"):
        yield from filter(None, (name.strip() for name in text.split(",")))
        return
    try:
        content = Path(text[1:]).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--ids {text!r:.200}: {error}. Expected a UTF-8 text file with one id a line"
        ) from error
    lines = (line.partition("\t")[0].strip() for line in content.split("\n"))
    yield from filter(None, lines)


def check_ids(ids: Iterable[str], suites: Mapping[str, Collection[str]]) -> None:
    """Every id must be a sample's of some suite, and every suite must have one of them.

    `suites` holds the ids of all samples by suite. Raises UnknownName, UsageError.
    """
    asked = frozenset(ids)
    names = {suite: {*own, *(f"{suite}:{i}" for i in own)} for suite, own in suites.items()}
    for name in sorted(asked.difference(*names.values())):
        suite, _, own_id = name.partition(":")
        among = {suite: suites[suite]} if suite in suites else suites
        raise UnknownName(
            "--ids",
            own_id if suite in suites else name,
            f"sample of {', '.join(among)}",
            [sample_id for own in among.values() for sample_id in own],
            f"r2w-eval list --ids {next(iter(among))}",
        )
    for suite, own_names in names.items():
        if asked.isdisjoint(own_names):
            raise UsageError(
                f"--ids {name_some(sorted(asked))}: none of them is a sample of {suite}. Leave it "
                f"out of --tasks, or add one of its own. Try: r2w-eval list --ids {suite}"
            )


def describe_subset(config: Mapping[str, Any]) -> str:
    """How a run chose its samples, in the words of its flags; `config` is that of run.json.

    >>> describe_subset({"limit": 8, "shuffle": True, "seed": 1, "ids": []})
    '--shuffle --limit 8 --seed 1'
    """
    words = [f"--ids {name_some(config['ids'])}"] if config.get("ids") else []
    flags = ("only_recorded", "only_complete")
    words += [f"--{name.replace('_', '-')}" for name in flags if config.get(name)]
    if config.get("limit"):
        drawn = config.get("shuffle")
        words.append(
            f"--shuffle --limit {config['limit']} --seed {config['seed']}"
            if drawn
            else f"--limit {config['limit']}"
        )
    return " ".join(words) or "all"


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
