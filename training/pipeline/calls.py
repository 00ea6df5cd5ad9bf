"""Upper bounds of the calls of a pipeline's stages to writers, judges and scorers.

    loop         4 + 2 F + 3 K calls a prompt at most: K rounds, F fresh assessments (2 F of them
                 the second judge's, where there is one; K the internaliser's, where it is a model
                 of its own)
    judge of RL  calls a group of n: n (pointwise), 2 n opponents (pairwise), 2 (n - 1) (in_group),
                 2 n for each reference met (references)
    reflections  of each rollout: K by a judge as process scorer, K + 1 texts by one of their effect
    validity     what the suite asks of a judge before the first step

What cannot be read or used is asked for again (`synth.tries`), which is not counted. A policy that
learned from the loop is assumed to reflect as often as the loop, K times. A row whose
stage begins with `judge:` is of the judge of that name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from r2w_eval.reward_models import judge as item_judge
from r2w_eval.reward_models.scorer import JUDGE
from r2w_eval.training.pipeline.grid import variants
from r2w_eval.training.pipeline.recipe import Recipe
from r2w_eval.training.prompts import Prompt
from r2w_eval.training.rl.contests import circle
from r2w_eval.training.rl.outcomes import RUBRIC_DECODING
from r2w_eval.training.rl.reference_file import read_reference_file
from r2w_eval.training.rl.settings import RLSettings

from r2w_eval.comparison.pairwise import JUDGE_DECODING
from r2w_eval.models.cost import FIRST_GUESS_TOKENS
from r2w_eval.reflection import effects
from r2w_eval.run.dryrun import Forecast
from r2w_eval.types import Decoding

# a template of the loop with its prompt; a prompt of RL
TEMPLATE_TOKENS = 400
PROMPT_TOKENS = 100
# calls of a judge and of a writer, at another model's price
SECOND = "judge_second"
INNER = "write_internaliser"
# different items of the validity suite, and the texts of one of them; counted, 174 on average
VALIDITY_ITEMS, VALIDITY_TOKENS = 5_800, 200


def loop_calls(n: int, recipe: Recipe) -> tuple[Forecast, ...]:
    """Upper bound of the calls of all models of the loop for `n` prompts."""
    rounds, synth = recipe.synth.rounds, recipe.synth
    writing = min(synth.writer_tokens, FIRST_GUESS_TOKENS)
    judging = min(synth.judge_tokens, FIRST_GUESS_TOKENS)
    fresh = n * 2 * synth.fresh
    second = fresh if recipe.traces.second_judge else 0
    model, _, internaliser = recipe.traces.models
    inner = n * rounds if internaliser != model else 0
    writer, judge = n * (2 + 2 * rounds) - inner, n * (2 + rounds) + fresh - second
    told = TEMPLATE_TOKENS + writing
    rows = (
        ("write", writer, writing),
        (INNER, inner, writing),
        ("judge", judge, judging),
        (SECOND, second, judging),
    )
    return tuple(
        Forecast("loop", stage, calls, calls * told, calls * written)
        for stage, calls, written in rows
        if calls
    )


def judge_calls(settings: RLSettings, references: int = 0) -> int:
    """Calls of the judge per group of rollouts; `references` is the most that a prompt has.

    >>> [judge_calls(RLSettings(outcome_form=form)) for form in ("pointwise", "pairwise")]
    [8, 32]
    >>> judge_calls(RLSettings(outcome_form="in_group"))
    14
    """
    n = settings.group
    met = 1 if settings.rising_references else references
    calls = {
        "pointwise": n,
        "pairwise": 2 * len(circle(range(n), settings.opponents)),
        "in_group": 2 * (n - 1),
        "references": 2 * n * met,
    }
    return calls.get(settings.outcome_form, 0)


def reward_calls(own: RLSettings, prompts: Sequence[Prompt]) -> Forecast:
    """Calls of the outcome reward over a whole training, with the judge's tokens if it is a judge.

    Answers are taken to be as long as a completion may be; each prompt without a rubric costs one
    more call.
    """
    groups = own.steps * own.groups_per_step
    if own.outcome_form == "scorer":
        return text_calls(own.outcome, groups * own.group, own.max_completion_tokens)
    stored = read_reference_file(Path(own.references)) if own.references else {}
    calls = groups * judge_calls(own, max(map(len, stored.values()), default=0))
    is_pair = own.outcome_form != "pointwise"
    if not is_pair:
        calls += sum(not prompt.rubric for prompt in prompts)
    tokens = (2 if is_pair else 1) * own.max_completion_tokens
    return _asked("judge", calls, tokens, JUDGE_DECODING if is_pair else RUBRIC_DECODING)


def text_calls(scorer: str, n: int, tokens: int) -> Forecast:
    """Calls of a scorer about `n` texts of at most `tokens`; without tokens if it is no judge."""
    if not scorer.startswith(JUDGE):
        return Forecast("rl", "reward", n, 0, 0)
    return _asked(scorer, n, tokens, effects.DECODING)


def reflection_calls(own: RLSettings, n: int, rounds: int) -> Iterator[Forecast]:
    """Calls of the judges of the reflections of `n` rollouts with `rounds` reflections each."""
    if not own.process_mapping.weight:
        return
    tokens = own.max_completion_tokens
    if own.process.startswith(JUDGE):
        yield _asked(own.process, n * rounds, tokens, item_judge.DECODING)
    if own.effect.form != "none" and own.effect.scorer.startswith(JUDGE):
        yield _asked(own.effect.scorer, n * (rounds + 1), tokens, effects.DECODING)


def validity_calls(scorer: str, report: str) -> tuple[Forecast, ...]:
    """Calls of the validity suite on a judge, unless a report is named, or waived."""
    if report or not scorer.startswith(JUDGE):
        return ()
    return (_asked(scorer, VALIDITY_ITEMS, VALIDITY_TOKENS, item_judge.DECODING),)


def signal_calls(recipe: Recipe) -> tuple[Forecast, ...]:
    """Calls about the SFT models' texts on the held-out prompts; repeated scorers count once."""
    rl, seeds = recipe.rl, len(recipe.grid.seeds)
    n = recipe.prompts.held * recipe.rollouts.samples * seeds
    ways = [rl, *(own.settings for own in variants(rl, recipe.grid).values())]
    rows = [text_calls(rl.outcome, n, recipe.rollouts.max_tokens)]
    for way in ways:
        rows += reflection_calls(way, n, recipe.synth.rounds)
    return tuple(dict.fromkeys(row for row in rows if row.prompt_tokens))


def _asked(stage: str, calls: int, tokens: int, decoding: Decoding) -> Forecast:
    """Calls of a judge, each about texts of at most `tokens`."""
    told = TEMPLATE_TOKENS + PROMPT_TOKENS + tokens
    replies = min(decoding.max_tokens or FIRST_GUESS_TOKENS, FIRST_GUESS_TOKENS)
    return Forecast("rl", stage, calls, calls * told, calls * replies)
