"""Reward functions in the shapes that trainers and harnesses call.

    TRL     GRPOTrainer(reward_funcs=trl_reward) or trl_reward_async; None for an unscorable text
    verl    reward.custom_reward_function.path=…/adapters.py, name=compute_score
    lm-eval `register_lm_eval()`, then `filter: r2w_best_of_n` in a task's filter_list

TRL's string form (`reward_funcs=DIR`) needs no adapter: it loads the exported folder. A failure is
never a 0: TRL gets None, verl an exception, which its trainer counts as a failed sample.

Only the answer is scored, not the thinking in `<think>` tags before it. A completion whose thinking
never ends has no answer and cannot be scored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from r2w_eval.reward_models.items import WritingItem
from r2w_eval.reward_models.scorer import NAME, ItemScorer, best_of_n, open_scorer
from r2w_eval.reward_models.serving.turns import without_ends

from r2w_eval.models.completions import last_turn
from r2w_eval.models.thinking import answer_of


def read_answer(completion: Any) -> str | None:
    """The answer in a completion, a text or turns: without thinking, and without end-of-turn tokens
    in the text, as the server reads it. None if there is none.

    >>> read_answer("<think>plan</think>Once.<|im_end|>"), read_answer("<think>plan")
    ('Once.', None)
    """
    return answer_of(without_ends(last_turn(completion, "assistant")))


class Unscorable(RuntimeError):
    """A sample could not be scored; it must not get a 0 instead."""


@cache
def _scorer(spec: str) -> ItemScorer:
    return open_scorer(spec)


def trl_reward(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    scorer: str = NAME,
    **columns: Any,
) -> list[float | None]:
    """A reward function for TRL: one number per completion, None if it could not be scored.

    In conversations the prompt is the last user turn, the completion the last assistant turn.
    """
    pairs = zip(prompts, completions, strict=True)
    items = [
        WritingItem(str(i), last_turn(prompt, "user"), answer)
        for i, (prompt, completion) in enumerate(pairs)
        if (answer := read_answer(completion)) is not None
    ]
    found = {s.id: s.value for s in _scorer(scorer).score(items)}
    return [found.get(str(i)) for i in range(len(completions))]


async def trl_reward_async(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    scorer: str = NAME,
    **columns: Any,
) -> list[float | None]:
    """As `trl_reward`, for use with other asynchronous reward functions."""
    return await asyncio.to_thread(trl_reward, prompts, completions, scorer)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    scorer: str = NAME,
    **options: Any,
) -> dict[str, float]:
    """A custom reward function for verl: the reward of one sample, under the same keys for all.

    `extra_info["prompt"]` is the prompt, if the data set has one; `scorer` comes from
    `reward.custom_reward_function.reward_kwargs`. Raises Unscorable.
    """
    # a column of turns may come as an array, which is neither true nor false
    prompt = (extra_info or {}).get("prompt")
    (value,) = trl_reward(["" if prompt is None else prompt], [solution_str], scorer)
    if value is None:
        raise Unscorable(f"{data_source}: the answer has no score. It is no 0; leave it out")
    return {"score": value, "r2w_reward": value}


@cache
def register_lm_eval() -> None:
    """Register the lm-eval filter `r2w_best_of_n`, which keeps the best response per document.

    Its arguments: `scorer`, and `prompt`, the column of the documents that holds what was asked.
    """
    from lm_eval.api.filter import Filter
    from lm_eval.api.registry import register_filter

    @register_filter("r2w_best_of_n")
    class BestOfN(Filter):  # type: ignore[misc]
        """Keeps the response with the highest outcome, or the first if none can be scored."""

        def __init__(self, scorer: str = NAME, prompt: str = "prompt") -> None:
            self._scorer = _scorer(scorer)
            self._prompt = prompt

        def apply(
            self, resps: Iterable[Sequence[str]], docs: Sequence[Mapping[str, Any]]
        ) -> list[list[str]]:
            return [
                [own[pick_best(self._scorer, last_turn(doc.get(self._prompt) or "", "user"), own)]]
                for own, doc in zip(resps, docs, strict=True)
            ]


def pick_best(scorer: ItemScorer, prompt: str, responses: Sequence[str]) -> int:
    """Index of the response with the best answer; 0 if none can be scored."""
    answers = {i: read_answer(response) for i, response in enumerate(responses)}
    texts = {i: answer for i, answer in answers.items() if answer is not None}
    best = best_of_n(scorer, [WritingItem(str(i), prompt, text) for i, text in texts.items()])
    return 0 if best is None else list(texts)[best]
