"""Prompts to train on, from this project's starter grammar or from the user's file.

A file has one JSON object per line, `{"id", "lang", "domain", "prompt", "rubric"?}`, where a rubric
is a list of `{"name", "description", "weight"?}` (specification: r2write.md, section 3).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r2w_eval.data import read_jsonl
from r2w_eval.errors import UsageError
from r2w_eval.paths import packaged_text
from r2w_eval.types import is_number

LANGUAGES = ("en", "zh")
EXAMPLE = '{"id": "1", "lang": "en", "domain": "essay", "prompt": "Write …"}'


MAX_WEIGHT = 1e6


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion of a rubric. Raises ValueError for an invalid name, description or weight."""

    name: str
    description: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (self.name, self.description)):
            raise ValueError("name and description: expected text")
        if not self.name.strip():
            raise ValueError("a criterion without a name")
        if not is_number(self.weight) or not 0 < self.weight <= MAX_WEIGHT:
            raise ValueError(
                f"{self.name[:60]!r}: weight {self.weight!r:.40}: expected a number above 0, at "
                f"most {MAX_WEIGHT:g}"
            )


def make_rubric(entries: Iterable[Mapping[str, Any]]) -> tuple[Criterion, ...]:
    """A rubric from JSON objects. Raises ValueError, TypeError."""
    rubric = tuple(Criterion(**entry) for entry in entries)
    if len({criterion.name for criterion in rubric}) < len(rubric):
        raise ValueError("a name occurs twice")
    return rubric


@dataclass(frozen=True, slots=True)
class Prompt:
    """One writing task. `lang` is a BCP 47 code; for an empty rubric the judge proposes one."""

    id: str
    lang: str
    domain: str
    prompt: str
    rubric: tuple[Criterion, ...] = ()


def starter_prompts(n: int, seed: int = 0, languages: Sequence[str] = LANGUAGES) -> list[Prompt]:
    """`n` different prompts of the starter grammar, spread evenly over languages and domains.

    Raises UsageError for fewer than one, and when the grammar has fewer than `n`.

    >>> [prompt.id for prompt in starter_prompts(3)]
    ['starter-en-academic-0', 'starter-zh-academic-0', 'starter-en-business-0']
    """
    if n < 1:
        raise UsageError(f"{n} starter prompts: expected 1 or more. Try: --n 12")
    text = packaged_text("grammar.yaml", __package__)
    grammar: Mapping[str, Any] = yaml.safe_load(text)
    names = list(grammar["en"]["domains"])
    streams = [_stream(grammar[lang], lang, domain, seed) for domain in names for lang in languages]
    rounds = itertools.chain.from_iterable(zip(*streams, strict=False))
    prompts = list(itertools.islice(rounds, n))
    if len(prompts) < n:
        raise UsageError(
            f"{n} starter prompts: the grammar has {len(prompts)} in {', '.join(languages)}. Ask "
            f"for fewer, or name a file with --prompts"
        )
    return prompts


def hold_apart(
    prompts: Sequence[Prompt], n: int, setting: str = "prompts.held"
) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts to train on, and the last `n`, which are held out for evaluation.

    Starter prompts alternate over languages and domains, so both parts cover all of them; a file of
    your own should be shuffled beforehand. Raises UsageError naming `setting`, where `n` came from.
    """
    if not 0 <= n < len(prompts):
        raise UsageError(
            f"{setting} {n}: expected 0 to {len(prompts) - 1}, for there are {len(prompts)} "
            f"prompts, and some have to be left to train on. Try: {min(len(prompts) - 1, 12)}"
        )
    split = len(prompts) - n
    return list(prompts[:split]), list(prompts[split:])


def _stream(grammar: Mapping[str, Any], lang: str, domain: str, seed: int) -> Iterator[Prompt]:
    """The prompts of one language and domain, each (genre, subject) once, in seeded order."""
    own = grammar["domains"][domain]
    pairs = list(itertools.product(own["genres"], own["subjects"]))
    # a string seed: the same order on every machine and Python
    chance = random.Random(f"{seed}/{lang}/{domain}")
    chance.shuffle(pairs)
    for number, (genre, subject) in enumerate(pairs):
        words = {
            "genre": genre,
            "subject": subject,
            "audience": chance.choice(grammar["audiences"]),
            "constraint": chance.choice(grammar["constraints"]),
        }
        text = chance.choice(grammar["frames"]).format(**words)
        yield Prompt(f"starter-{lang}-{domain}-{number}", lang, domain, text)


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file. Raises DataError, UsageError naming the line."""
    if not path.is_file():
        raise UsageError(f"--prompts {str(path)!r}: no such file. Expected lines like {EXAMPLE}")
    prompts = [
        _read_prompt(record, f"{path}, line {n}") for n, record in enumerate(read_jsonl(path), 1)
    ]
    if not prompts:
        raise UsageError(f"{path}: empty. Expected lines like {EXAMPLE}")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise UsageError(f"{path}: id {prompt.id!r} occurs twice. Expected one line each")
        seen.add(prompt.id)
    return prompts


def _read_prompt(record: Any, where: str) -> Prompt:
    if not isinstance(record, dict):
        raise UsageError(f"{where}: {str(record)[:80]!r} is not an object. Expected {EXAMPLE}")
    values = {name: record.get(name) for name in ("id", "lang", "domain", "prompt")}
    for name, value in values.items():
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"{where}: {name} is {str(value)[:80]!r}. Expected text: {EXAMPLE}")
    try:
        rubric = make_rubric(record.get("rubric", ()))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{where}: rubric: {error}. Expected a list of "
            f'{{"name": …, "description": …, "weight": 1}}'
        ) from error
    return Prompt(**{name: str(value) for name, value in values.items()}, rubric=rubric)


def lay_out(prompts: Sequence[Prompt], n: int, seed: int) -> list[Prompt]:
    """`n` prompts in the order of training: the epochs in a row, each shuffled.

    >>> two = [Prompt(name, "en", "d", "p") for name in "ab"]
    >>> sorted(prompt.id for prompt in lay_out(two, 4, 0))
    ['a', 'a', 'b', 'b']
    """
    chance = random.Random(seed)
    laid: list[Prompt] = []
    while len(laid) < n:
        laid += chance.sample(list(prompts), len(prompts))
    return laid[:n]
