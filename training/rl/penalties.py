"""Penalties on the outcome reward for repetitive, long or malformed thinking; off by default.

They are subtracted before the group is normalised, so a penalty that all rollouts of a group share
changes nothing (specification: r2write.md section 6.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r2w_eval.training.limits import COUNT, NOT_NEGATIVE, check_numbers
from r2w_eval.training.rl.completions import TAGS, read_pieces, thinking_tokens, without_end

from r2w_eval.models.thinking import ThinkTags
from r2w_eval.trace.links import link_reflections
from r2w_eval.trace.tokens import decode_pieces
from r2w_eval.trace.types import TagSchema, Trace


@dataclass(frozen=True)
class Penalties:
    """Weights, in units of the outcome and at least 0.

    redundancy: times the share of reflections that repeat an earlier one or only praise
    length: times the thinking tokens beyond `budget`, in units of `budget`
    budget: thinking tokens without a penalty
    form: if the trace has a fault, such as a tag that is nested, not closed, or in the answer
    """

    redundancy: float = 0.0
    length: float = 0.0
    budget: int = 1024
    form: float = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError."""
        weights = ("redundancy", "length", "form")
        check_numbers("rl.penalties", self, {NOT_NEGATIVE: weights, COUNT: ("budget",)})

    @property
    def is_on(self) -> bool:
        """Whether any weight is above 0."""
        return max(self.redundancy, self.length, self.form) > 0


def penalty(trace: Trace, n_thinking: int, penalties: Penalties) -> float:
    """The penalty of one completion with `n_thinking` thinking tokens.

    >>> from r2w_eval.trace import segment_trace
    >>> trace = segment_trace("<draft>It rained.</draft>")
    >>> penalty(trace, 150, Penalties(length=0.2, budget=100))
    0.1
    """
    links = link_reflections(trace)
    repeats = sum(link.is_repeat or link.is_praise for link in links) / max(1, len(links))
    beyond = max(0.0, n_thinking / penalties.budget - 1)
    has_fault = bool(trace.faults) or any(segment.faults for segment in trace.segments)
    return (
        penalties.redundancy * repeats
        + penalties.length * beyond
        + penalties.form * float(has_fault)
    )


class Penalised:
    """An outcome reward minus the penalties; completions without a reward stay without one."""

    __name__ = "outcome"

    def __init__(
        self, outcome: Any, penalties: Penalties, tokenizer: Any, tags: ThinkTags = TAGS
    ) -> None:
        self._outcome = outcome
        self._penalties = penalties
        self._tokenizer = tokenizer
        self._tags = tags
        # lets the trainer ask ahead if the outcome can
        self.begin = getattr(outcome, "begin", None)

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float | None]:
        """One reward per completion. `completion_ids` are the tokens that the policy generated."""
        rewards = self._outcome(prompts, completions, completion_ids=completion_ids, **columns)
        costs = [self._cost(ids) for ids in completion_ids]
        if log := columns.get("log_metric"):
            log("outcome/penalty", sum(costs) / max(1, len(costs)))
        return [None if r is None else r - cost for r, cost in zip(rewards, costs, strict=True)]

    def _cost(self, ids: Sequence[int]) -> float:
        pieces = decode_pieces(without_end(ids, self._tokenizer), self._tokenizer.decode)
        trace = read_pieces(pieces, TagSchema(), self._tags)
        return penalty(trace, thinking_tokens(pieces, self._tags), self._penalties)
