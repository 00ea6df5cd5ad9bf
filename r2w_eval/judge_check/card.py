"""The evaluator card: what is known of a judge itself, beside trivial rules and null answers.

Made by `r2w-eval judge-check`, read by leaderboards. The JSON form is a public interface: `schema`
rises with every change that an old reader could misread, unknown keys are ignored (specification:
harness B3; docs/judges.md describes every field).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from r2w_eval.errors import DataError
from r2w_eval.hashing import content_hash
from r2w_eval.paths import safe_name
from r2w_eval.stats.sign_bounds import least_p
from r2w_eval.types import Metric

SCHEMA = 1
KIND = "evaluator_card"
T = TypeVar("T")


class Signal(StrEnum):
    """Does the judge agree with people better than the best trivial rule does?"""

    NONE = "none"
    """On no labelled set."""
    PARTIAL = "partial"
    """On some, or on all of them while null answers get by."""
    CLEAR = "clear"
    """On all of them, and every null answer scores below real ones."""


@dataclass(frozen=True, slots=True)
class SetFigures:
    """One labelled set. Intervals are over prompts; every metric says how many it rests on."""

    name: str
    kind: str
    """`pairs` (people preferred one of two) or `ratings` (people gave scores)."""
    language: str
    licence: str
    sha256: str
    n_prompts: int
    n_texts: int
    n_pairs: int
    """Pairs that people did not tie, which is what `pair_accuracy` is over."""
    metrics: tuple[Metric, ...]
    """The judge: pair_accuracy, its parts, preference_accuracy, correlations, kappa, ceiling."""
    baselines: tuple[Metric, ...]
    """Trivial rules on the same pairs: longer, shorter, first, constant, majority."""
    best_baseline: str
    lift: Metric
    """Pair accuracy of the judge minus that of the best trivial rule, paired by prompt."""
    notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> Metric:
        """Pair accuracy of the judge, which stands first."""
        return self.metrics[0]

    @property
    def best_rule(self) -> Metric:
        """Pair accuracy of the best trivial rule."""
        return next(metric for metric in self.baselines if metric.name == self.best_baseline)


@dataclass(frozen=True, slots=True)
class NullFigures:
    """One kind of answer that no reader would prefer, judged with the same prompt."""

    name: str
    description: str
    n_prompts: int
    mean: float | None
    """Mean score of the null answers."""
    real_mean: float | None
    """Mean score of the real answers to the same prompts."""
    below: Metric
    """Share of real answers that score above the null one, ties as half; 1 is right."""
    gap: Metric
    """Real minus null in points of the judge, paired by prompt."""
    weakest_system: float | None = None
    """Mean of the weakest real writer on the same prompts, where writers are known."""

    @property
    def survives(self) -> bool:
        """The judge is shown to score it below real answers: the interval of the gap is above 0.

        Gaps that are all equal have no interval; then six requests are needed, as by sign flips.
        """
        if self.gap.low is None or self.gap.low <= 0:
            return False
        return self.gap.low != self.gap.high or least_p(self.gap.n_scored) <= 0.05

    @property
    def beats_a_system(self) -> bool:
        """Scores above the weakest real writer."""
        return (
            self.mean is not None
            and self.weakest_system is not None
            and self.mean >= self.weakest_system
        )


@dataclass(frozen=True, slots=True)
class Consumption:
    """What the check took; None where it was not counted or has no price."""

    n_verdicts: int
    n_usable: int
    failures: Mapping[str, int]
    prompt_tokens: int
    completion_tokens: int
    seconds_per_1000: float | None
    """Sum of latencies per 1,000 verdicts: time on one connection, cached replies left out."""
    usd_per_1000: float | None


@dataclass(frozen=True, slots=True)
class EvaluatorCard:
    """All figures of one judge. `judge` and `judge_facts` are those of results, so that a ranking
    finds the card of its judge; `key` names the check itself.
    """

    judge: str
    judge_facts: Mapping[str, Any]
    judge_decoding: Mapping[str, Any]
    key: str
    created: str
    r2w_eval: str
    identity: Mapping[str, Any]
    """Everything that changes the figures: sets, prompts, limits, probes, repeats."""
    models_returned: tuple[str, ...]
    is_smoke_test: bool
    signal: Signal
    verdict: tuple[str, ...]
    """Plain sentences, each resting on figures below."""
    flags: tuple[str, ...]
    """What a reader must not overlook; empty is good."""
    sets: tuple[SetFigures, ...]
    languages: tuple[Metric, ...]
    """Pair accuracy by language, over all sets."""
    behaviour: tuple[Metric, ...]
    """Leniency, spread, length slope, order effects, self-consistency."""
    nulls: tuple[NullFigures, ...]
    consumption: Consumption
    notes: tuple[str, ...] = ()
    kind: str = KIND
    schema: int = SCHEMA

    @property
    def file_stem(self) -> str:
        """Under this name the card lies in a folder of cards."""
        return f"{safe_name(self.judge, 60)}-{self.key}"


def judge_key(judge: str, facts: Mapping[str, Any]) -> str:
    """Equal for a judge on a card and the same judge in a result's identity."""
    return content_hash([judge, facts], 12)


def read_card(record: Mapping[str, Any], source: str = "card") -> EvaluatorCard:
    """A card from its JSON form. Raises DataError when it is none, or of a newer schema."""
    if record.get("kind") != KIND:
        raise DataError(
            f"{source}: not an evaluator card. Make one: r2w-eval judge-check --judge J"
        )
    if record.get("schema") != SCHEMA:
        raise DataError(
            f"{source}: evaluator card of schema {record.get('schema')!r}, this program reads "
            f"{SCHEMA}. Make it anew: r2w-eval judge-check --judge J"
        )
    try:
        return _build(
            EvaluatorCard,
            record,
            signal=Signal(record["signal"]),
            sets=tuple(map(_read_set, record["sets"])),
            nulls=tuple(map(_read_null, record["nulls"])),
            languages=_metrics(record["languages"]),
            behaviour=_metrics(record["behaviour"]),
            consumption=_build(Consumption, record["consumption"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{source}: broken evaluator card ({type(error).__name__}: {error}). Make it anew: "
            f"r2w-eval judge-check --judge J"
        ) from error


def _read_set(record: Mapping[str, Any]) -> SetFigures:
    return _build(
        SetFigures,
        record,
        metrics=_metrics(record["metrics"]),
        baselines=_metrics(record["baselines"]),
        lift=_build(Metric, record["lift"]),
    )


def _read_null(record: Mapping[str, Any]) -> NullFigures:
    below, gap = _build(Metric, record["below"]), _build(Metric, record["gap"])
    return _build(NullFigures, record, below=below, gap=gap)


def _metrics(records: Iterable[Mapping[str, Any]]) -> tuple[Metric, ...]:
    return tuple(_build(Metric, record) for record in records)


def _build(kind: type[T], record: Mapping[str, Any], **read: Any) -> T:
    """A dataclass from a record: unknown keys are ignored, lists become tuples."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    plain = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in record.items()
        if name in known
    }
    return kind(**{**plain, **read})


def load_card(path: Path) -> EvaluatorCard:
    """Read one card file. Raises DataError."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: no readable card ({error}). Make one: r2w-eval judge-check --judge J"
        ) from error
    return read_card(record if isinstance(record, Mapping) else {}, str(path))


def load_cards(folder: Path) -> list[EvaluatorCard]:
    """All `*.json` cards of a folder, by file name; an absent folder holds none."""
    return [load_card(path) for path in sorted(folder.glob("*.json"))]


def find_card(
    cards: Iterable[EvaluatorCard], judge: str, facts: Mapping[str, Any]
) -> EvaluatorCard | None:
    """The newest card of the judge that a result names (`identity["judge"]`, `["judge_facts"]`)."""
    wanted = judge_key(judge, facts)
    own = [card for card in cards if judge_key(card.judge, card.judge_facts) == wanted]
    return max(own, key=lambda card: card.created, default=None)
