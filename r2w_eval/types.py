"""The nouns of the package: frozen dataclasses that cross module boundaries.

`Sample -> Response -> JudgeRequest -> Judgement -> Metric`. Statuses are closed sets, and each
status knows its cause, because a failure of the model, of the judge and of the infrastructure are
three different things in every average (specification: harness R2, R3, section 3, section 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value that was read, from JSON or YAML, is a number: true and false are none.

    >>> is_number(1), is_number(0.5), is_number(True), is_number("1")
    (True, True, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Cause(StrEnum):
    """Who is to blame for a missing value."""

    MODEL = "model"
    JUDGE = "judge"
    INFRASTRUCTURE = "infrastructure"


class Mode(StrEnum):
    """How a suite is scored: upstream's exact treatment, or upstream's prompt with our rules."""

    PARITY = "parity"
    STRICT = "strict"


class WriterStatus(StrEnum):
    """What became of one request to the writer."""

    OK = "ok"
    TRUNCATED = "truncated"
    UNCLOSED_THINK = "unclosed_think"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    TOO_SHORT = "too_short"
    REFUSAL = "refusal"
    CONTENT_FILTER = "content_filter"
    ERROR = "error"
    NOT_SENT = "not_sent"

    @property
    def cause(self) -> Cause | None:
        """None when there is an answer to judge."""
        if self in (WriterStatus.OK, WriterStatus.TRUNCATED):
            return None
        if self in (WriterStatus.CONTENT_FILTER, WriterStatus.ERROR, WriterStatus.NOT_SENT):
            return Cause.INFRASTRUCTURE
        return Cause.MODEL


class JudgeStatus(StrEnum):
    """What became of one verdict."""

    OK = "ok"
    PARSE_ERROR = "parse_error"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_LABEL = "unknown_label"
    CRITERIA_MISMATCH = "criteria_mismatch"
    LOW_MASS = "low_mass"
    TRUNCATED = "judge_truncated"
    REFUSED = "judge_refused"
    FILTERED = "judge_filtered"
    TOO_LONG = "judge_too_long"
    BAD_REQUEST = "bad_request"
    TRANSPORT = "transport"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    NOT_SENT = "not_sent"
    NO_ANSWER = "no_answer"
    # parity only: upstream keeps this reply, asks no more, and then loses the item
    UPSTREAM_LOST = "upstream_lost"
    TOO_FEW_JUDGES = "too_few_judges"
    NO_MAJORITY = "no_majority"

    @property
    def is_transient(self) -> bool:
        """A later run of the same command sends the request again."""
        return self in _TRANSIENT

    @property
    def is_unreadable(self) -> bool:
        """The judge answered, but without a usable verdict: worth one more ask."""
        return self in _UNREADABLE

    @property
    def cause(self) -> Cause | None:
        """None for a usable verdict. `no_answer` is charged where the answer was lost."""
        if self in (JudgeStatus.OK, JudgeStatus.NO_ANSWER):
            return None
        return Cause.INFRASTRUCTURE if self.is_transient else Cause.JUDGE


_TRANSIENT = frozenset(
    {JudgeStatus.TRANSPORT, JudgeStatus.TIMEOUT, JudgeStatus.RATE_LIMITED, JudgeStatus.NOT_SENT}
)
_UNREADABLE = frozenset(
    {
        JudgeStatus.PARSE_ERROR,
        JudgeStatus.OUT_OF_RANGE,
        JudgeStatus.UNKNOWN_LABEL,
        JudgeStatus.CRITERIA_MISMATCH,
        JudgeStatus.TRUNCATED,
    }
)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Decoding:
    """Sampling parameters that are sent; None means "not sent, the server decides".

    `response_format` is "json_schema" in the settings of a suite whose questions each have a schema
    for the reply, and that schema as JSON (name, schema, strict) in a request.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_format: str | None = None

    def sent(self) -> dict[str, Any]:
        """Only what is set, in a fixed order: goes into requests, hashes and manifests."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None and value != ()
        }


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the engine reported them; None where it did not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a suite: the first user turn, and what its judge needs to know.

    `meta` holds small facts for aggregation (domains, criterion names), `material` the texts that
    the judge needs (criteria, references); both are JSON-serialisable. `language` is a BCP 47 code.
    `lacks` names the user's option (references, context) that has nothing for this sample, which
    can then not be run. `max_tokens` bounds its answer where not all have the suite's own bound.
    """

    task: str
    id: str
    messages: tuple[Message, ...]
    language: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    material: Mapping[str, Any] = field(default_factory=dict)
    lacks: str = ""
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What the writer returned for one turn of one sample.

    `raw` is the text as received and is never altered; `thinking` and `answer` are our reading of
    it. `attempt` counts the tries at a turn that the suite asks for again when it is too short.
    """

    key: str
    task: str
    sample_id: str
    model: str
    raw: str
    answer: str
    thinking: str | None
    status: WriterStatus
    repeat: int = 0
    turn: int = 0
    attempt: int = 0
    reason: str = ""
    finish_reason: str | None = None
    model_returned: str | None = None
    fingerprint: str | None = None
    usage: Usage = Usage()
    latency_s: float = 0.0
    seed: int | None = None
    prompt_hash: str = ""
    multi_block: bool = False
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a suite may see of the writer's work: the final answer, and all turns of it."""

    text: str
    raw: str
    status: WriterStatus
    turns: tuple[str, ...] = ()
    sample_id: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """A discrete scale as the judge writes it, for reading probabilities instead of text.

    `lead` is the text that the judge would write just before the label (an assistant prefix);
    `labels` maps each label to its value; `end` is the text that must follow a label, so that "1"
    is not confused with the beginning of "10".
    """

    lead: str
    labels: Mapping[str, float]
    end: str = ","


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """One question to a judge about one answer. `criterion` is unique within (answer, order).

    `facts` is what the parser must know besides the reply (official names, weights) and the judge
    is not told; JSON-serialisable, and no part of the key of the verdict.
    """

    criterion: str
    messages: tuple[Message, ...]
    scale: Scale | None = None
    order: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Score:
    """A value, or the reason why there is none. Never 0 for a failure."""

    value: float | None
    status: JudgeStatus = JudgeStatus.OK
    reason: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.value is None) == (self.status is JudgeStatus.OK):
            raise ValueError(
                f"Score(value={self.value!r}, status={self.status!r}) contradicts itself"
            )


@dataclass(frozen=True, slots=True)
class Judgement:
    """One verdict, with everything the judge said to get there (`asks`, raw, oldest first)."""

    key: str
    response_key: str
    task: str
    sample_id: str
    judge: str
    criterion: str
    score: Score
    asks: tuple[str, ...] = ()
    repeat: int = 0
    order: str = ""
    sample_repeat: int = 0
    model_returned: str | None = None
    usage: Usage = Usage()
    latency_s: float = 0.0
    cached: bool = False
    at: float | None = None
    """When it came, Unix seconds."""
    echoed: bool = False
    """The judged text itself holds something that the parser would take for a verdict."""


@dataclass(frozen=True, slots=True)
class ItemVerdicts:
    """All that an aggregator sees of one answer: no texts, only scores.

    `scores[criterion]` holds one `Score` per judge repeat and order; without orders place n is
    repeat n, up to the last that was asked. `measures` is what the suite's own `measure` found in
    the texts; empty when there was no answer. `is_judged`: a judge is asked about the answers of
    this run. `at_floor`: the answer failed and is counted at the suite's lowest value, which
    `scores` holds in place of verdicts.
    """

    sample_id: str
    language: str
    meta: Mapping[str, Any]
    status: WriterStatus
    scores: Mapping[str, tuple[Score, ...]]
    repeat: int = 0
    measures: Mapping[str, Any] = field(default_factory=dict)
    is_judged: bool = True
    at_floor: bool = False

    def valued(self, criterion: str) -> list[tuple[Score, float]]:
        """The scores of a criterion that have a value, each with it."""
        scores = self.scores.get(criterion, ())
        return [(score, score.value) for score in scores if score.value is not None]


NO_QUERY = ""
"""The cluster of a term that belongs to no query: a constant that upstream prints."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """A ratio of sums over items: sum(numerators) / sum(denominators), times `weight`.

    A plain mean has denominators of 1; a pooled (micro) mean has the number of pooled values.
    `clusters[i]` names the query that term i belongs to: the bootstrap draws whole queries.
    """

    clusters: tuple[str, ...]
    numerators: tuple[float, ...]
    denominators: tuple[float, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric as an aggregator states it: `offset + scale * sum(stratum ratios * weight)`.

    Stated instead of computed, so that one function gives the value and one bootstrap gives every
    interval. `n_expected` counts the items that should have contributed. An estimate that is not on
    the scale of the verdicts (a length, a rate) is not `bounded` by the suite's score range. An
    `is_share` is a proportion: every value lies between 0 and 1 before `scale` and `offset`.
    """

    name: str
    strata: tuple[Stratum, ...]
    n_expected: int
    scale: float = 1.0
    offset: float = 0.0
    is_headline: bool = False
    note: str = ""
    bounded: bool = True
    is_share: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """An estimate with its value and interval; `value` is None when nothing could be scored."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n_scored: int
    n_expected: int
    is_headline: bool = False
    note: str = ""
