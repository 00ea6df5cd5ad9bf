"""Forecasts memory, tokens, calls and hours of each stage of a pipeline, for the dry run.

The formulae, with P parameters, P' trained ones, L layers, h hidden width, V vocabulary, b rows in
a pass (SFT: batch_size; RL: micro_batch; keys and values: one call of the generation), s tokens in
a row (docs/training.md):

    states       4 P + 12 P' bytes     32-bit weights; gradients and two Adam moments of P'
    activations  b s (2 L h + 34 h + 8 V) bytes, twice the first two in 32 bits
                 kept at layer borders, one layer opened at a time (gradient checkpointing;
                 34 h: Korthikanti et al. 2022, table 2), logits and their gradient
    training     8 P FLOPs a token, 6 P with adapters only; generation 2 P
    loop         4 + 2 F + 3 K calls a prompt at most: K rounds, F fresh assessments (2 F of them
                 the second judge's, where there is one)
    judge of RL  calls a group of n: n (pointwise), 2 n opponents (pairwise), 2 (n - 1) (in_group),
                 2 n for each reference met (references)

Figures are for one device: memory that parallel training would spread is counted whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r2w_eval.training.pipeline.model_shape import ModelShape, shape_of
from r2w_eval.training.pipeline.plan import Stage
from r2w_eval.training.pipeline.recipe import Recipe
from r2w_eval.training.prompts import Prompt, read_prompts, starter_prompts
from r2w_eval.training.rl.contests import circle
from r2w_eval.training.rl.outcomes import RUBRIC_DECODING
from r2w_eval.training.rl.references import read_reference_file
from r2w_eval.training.rl.train import RLSettings

from r2w_eval.comparison.pairwise import JUDGE_DECODING
from r2w_eval.errors import UsageError
from r2w_eval.models.cost import FIRST_GUESS_TOKENS
from r2w_eval.run.dryrun import Forecast, forecast
from r2w_eval.run.planning import plan_tasks

# the interpreter with torch and the trainers, measured
PROGRAM_BYTES = 0.9e9
# a template of the loop with its prompt; a prompt of RL
TEMPLATE_TOKENS = 400
PROMPT_TOKENS = 100
# kept traces a prompt of the loop (specification: r2write.md section 11)
LOOP_YIELD = 0.4
# its calls are of judges, at another model's price
SECOND = "judge_second"


@dataclass(frozen=True)
class Need:
    """What a stage is expected to need; None where it cannot be estimated.

    trained, generated: tokens processed in training and generated, on this machine
    calls: to writers, judges and rewards
    """

    memory_bytes: float | None = None
    trained: float = 0
    generated: float = 0
    hours: float | None = 0.0
    calls: tuple[Forecast, ...] = ()


def train_memory(shape: ModelShape, trained: int, rows: int, tokens: int) -> float:
    """Bytes of one training process in 32 bits: `rows` of `tokens` tokens in a pass."""
    states = 4 * shape.parameters + 12 * trained
    inner = 2 * (2 * shape.layers + 34) * shape.hidden
    return PROGRAM_BYTES + states + rows * tokens * (inner + 8 * shape.vocabulary)


def cache_memory(shape: ModelShape, rows: int, tokens: int) -> float:
    """Bytes of the keys and values of `rows` answers in 32 bits."""
    return 2.0 * shape.layers * shape.keys * 4 * rows * tokens


def loop_calls(n: int, recipe: Recipe) -> tuple[Forecast, ...]:
    """Upper bound of the calls of writer, judge and second judge for `n` prompts."""
    rounds, synth = recipe.synth.rounds, recipe.synth
    writing = min(synth.writer_tokens, FIRST_GUESS_TOKENS)
    judging = min(synth.judge_tokens, FIRST_GUESS_TOKENS)
    fresh = n * 2 * synth.fresh
    second = fresh if recipe.traces.second_judge else 0
    writer, judge = n * (2 + 2 * rounds), n * (2 + rounds) + fresh - second
    told = TEMPLATE_TOKENS + writing
    rows = (("write", writer, writing), ("judge", judge, judging), (SECOND, second, judging))
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


def reward_calls(recipe: Recipe, prompts: Sequence[Prompt]) -> Forecast:
    """Calls of the outcome reward over a whole training, with the judge's tokens if it is a judge.

    Answers are taken to be as long as a completion may be; each prompt without a rubric costs one
    more call.
    """
    own, groups = recipe.rl, recipe.rl.steps * recipe.rl.groups_per_step
    if own.outcome_form == "scorer":
        return Forecast("rl", "reward", groups * own.group, 0, 0)
    stored = read_reference_file(Path(own.references)) if own.references else {}
    calls = groups * judge_calls(own, max(map(len, stored.values()), default=0))
    is_pair = own.outcome_form != "pointwise"
    if not is_pair:
        calls += sum(not prompt.rubric for prompt in prompts)
    told = TEMPLATE_TOKENS + PROMPT_TOKENS + (2 if is_pair else 1) * own.max_completion_tokens
    decoding = JUDGE_DECODING if is_pair else RUBRIC_DECODING
    replies = min(decoding.max_tokens or FIRST_GUESS_TOKENS, FIRST_GUESS_TOKENS)
    return Forecast("rl", "judge", calls, calls * told, calls * replies)


class Forecaster:
    """Estimates the need of each kind of stage of a recipe.

    shape: of the model; None if it is not known, and then `problem` says why
    commit: of the hub id by which the shape was read; empty for other models
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.problem, self.commit = "", ""
        self.shape: ModelShape | None
        try:
            self.shape, self.commit = shape_of(recipe.sft.model)
        except UsageError as error:
            self.shape, self.problem = None, str(error)

    def need(self, stage: Stage) -> Need:
        """The need of a stage; stages without a model get an empty one."""
        if stage.kind == "traces-loop":
            return self._loop()
        known = {
            "sft": self._sft,
            "rl": self._rl,
            "rollouts": self._rollouts,
            "evaluate": self._evaluate,
        }
        return known[stage.kind]() if stage.kind in known else Need()

    def prompts(self) -> list[Prompt]:
        """The prompts of the recipe's file, or of the starter grammar."""
        own = self.recipe.prompts
        if own.file:
            return read_prompts(Path(own.file))
        return starter_prompts(own.n, own.seed, own.languages)

    def n_traces(self) -> int:
        """Expected number of SFT rows; an upper bound for expert and planted traces."""
        limit = self.recipe.traces.limit
        loop = round(LOOP_YIELD * len(self.prompts()))
        counts = {"loop": loop, "expert": limit, "planted": limit}
        return sum(counts[source] for source in self.recipe.traces.sources)

    def hours(self, shape: ModelShape, per_token: float, trained: float, generated: float) -> float:
        """Hours of one device; `per_token` is training FLOPs per parameter and token."""
        own = self.recipe.hardware
        training = per_token * shape.parameters * trained / own.train_share
        generation = 2 * shape.parameters * generated / own.generate_share
        return (training + generation) / (own.teraflops * 1e12) / 3600

    def _loop(self) -> Need:
        return Need(calls=loop_calls(len(self.prompts()), self.recipe))

    def _sft(self) -> Need:
        own, shape = self.recipe.sft, self.shape
        tokens = self.n_traces() * own.epochs * own.max_tokens
        if shape is None:
            return Need(trained=tokens, hours=None)
        few = shape.adapter_parameters(own.lora_rank)
        trained, cost = (few, 6) if own.lora_rank else (shape.parameters, 8)
        memory = train_memory(shape, trained, own.batch_size, own.max_tokens)
        return Need(memory, tokens, 0, self.hours(shape, cost, tokens, 0))

    def _rl(self) -> Need:
        own, shape = self.recipe.rl, self.shape
        rows = own.rollouts
        length = PROMPT_TOKENS + own.max_completion_tokens
        generated = own.steps * rows * own.max_completion_tokens
        trained = own.steps * rows * length
        rewards = reward_calls(self.recipe, self.prompts())
        if shape is None:
            return Need(None, trained, generated, None, (rewards,))
        memory = train_memory(shape, shape.parameters, own.rollouts_per_pass, length)
        memory += 4 * shape.parameters * (own.beta > 0)
        memory += cache_memory(shape, own.rollouts_per_call, length)
        hours = self.hours(shape, 8, trained, generated)
        return Need(memory, trained, generated, hours, (rewards,))

    def _rollouts(self) -> Need:
        own, shape = self.recipe.rollouts, self.shape
        generated = self.recipe.prompts.held * own.samples * own.max_tokens
        if shape is None:
            return Need(None, 0, generated, None)
        length = PROMPT_TOKENS + own.max_tokens
        memory = PROGRAM_BYTES + 4 * shape.parameters
        memory += cache_memory(shape, own.batch_size, length)
        return Need(memory, 0, generated, self.hours(shape, 0, 0, generated))

    def _evaluate(self) -> Need:
        config = self.recipe.evaluate
        calls = tuple(row for plan in plan_tasks(config) for row in forecast(plan, config))
        generated = sum(row.completion_tokens for row in calls if row.stage == "write")
        if self.shape is None:
            return Need(None, 0, generated, None, calls)
        memory = PROGRAM_BYTES + 4 * self.shape.parameters
        return Need(memory, 0, generated, self.hours(self.shape, 0, 0, generated), calls)
