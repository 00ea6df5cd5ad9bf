"""Forecasts memory, tokens, calls and hours of each stage of a pipeline, for the dry run.

The formulae, with P parameters, P' trained ones, L layers, h hidden width, V vocabulary, b rows in
a pass (SFT: batch_size; RL: micro_batch; keys and values: one call of the generation), s tokens in
a row (docs/training.md):

    states       4 P + 12 P' bytes     32-bit weights; gradients and two Adam moments of P'
    activations  b s (2 L h + 34 h + 8 V) bytes, twice the first two in 32 bits
                 kept at layer borders, one layer opened at a time (gradient checkpointing;
                 34 h: Korthikanti et al. 2022, table 2), logits and their gradient
    training     8 P FLOPs a token, 6 P with adapters only; generation 2 P

Figures are for one device: memory that parallel training would spread is counted whole. Calls of
endpoints: calls.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from r2w_eval.training.pipeline.calls import (
    PROMPT_TOKENS,
    loop_calls,
    reflection_calls,
    reward_calls,
    signal_calls,
    validity_calls,
)
from r2w_eval.training.pipeline.grid import rl_arms
from r2w_eval.training.pipeline.model_shape import ModelShape, shape_of
from r2w_eval.training.pipeline.plan import Stage
from r2w_eval.training.pipeline.recipe import Recipe
from r2w_eval.training.prompts import Prompt, hold_apart, read_prompts, starter_prompts

from r2w_eval.errors import UsageError
from r2w_eval.run.dryrun import Forecast, forecast
from r2w_eval.run.planning import plan_tasks

# the interpreter with torch and the trainers, measured
PROGRAM_BYTES = 0.9e9
# kept traces a prompt of the loop (specification: r2write.md section 11)
LOOP_YIELD = 0.4


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
        known: Mapping[str, Callable[[Stage], Need]] = {
            "traces-loop": self._loop,
            "sft": self._sft,
            "reward": self._reward,
            "validity": self._validity,
            "signal": self._signal,
            "rl": self._rl,
            "rollouts": self._rollouts,
            "evaluate": self._evaluate,
        }
        return known[stage.kind](stage) if stage.kind in known else Need()

    def prompts(self) -> list[Prompt]:
        """The prompts of the recipe's file, or of the starter grammar, without those held apart."""
        own = self.recipe.prompts
        if own.file:
            found = read_prompts(Path(own.file))
        else:
            found = starter_prompts(own.n, own.seed, own.languages)
        return hold_apart(found, own.held)[0]

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

    def _loop(self, stage: Stage) -> Need:
        return Need(calls=loop_calls(len(self.prompts()), self.recipe))

    def _sft(self, stage: Stage) -> Need:
        own, shape = self.recipe.sft, self.shape
        tokens = self.n_traces() * own.epochs * own.max_tokens
        if shape is None:
            return Need(trained=tokens, hours=None)
        few = shape.adapter_parameters(own.lora_rank)
        trained, cost = (few, 6) if own.lora_rank else (shape.parameters, 8)
        memory = train_memory(shape, trained, own.batch_size, own.max_tokens)
        return Need(memory, tokens, 0, self.hours(shape, cost, tokens, 0))

    def _reward(self, stage: Stage) -> Need:
        if not any(self.recipe.grid.lambdas):
            return Need()
        return Need(calls=validity_calls(self.recipe.rl.process, self.recipe.rl.validity))

    def _validity(self, stage: Stage) -> Need:
        return Need(calls=validity_calls(stage.settings["process"], stage.settings["validity"]))

    def _signal(self, stage: Stage) -> Need:
        return Need(calls=signal_calls(self.recipe))

    def _rl(self, stage: Stage) -> Need:
        own, shape = rl_arms(self.recipe.rl, self.recipe.grid)[stage.name], self.shape
        rows = own.rollouts
        length = PROMPT_TOKENS + own.max_completion_tokens
        generated = own.steps * rows * own.max_completion_tokens
        trained = own.steps * rows * length
        calls = (
            reward_calls(own, self.prompts()),
            *reflection_calls(own, own.steps * rows, self.recipe.synth.rounds),
        )
        if shape is None:
            return Need(None, trained, generated, None, calls)
        memory = train_memory(shape, shape.parameters, own.rollouts_per_pass, length)
        memory += 4 * shape.parameters * (own.beta > 0)
        memory += cache_memory(shape, own.rollouts_per_call, length)
        hours = self.hours(shape, 8, trained, generated)
        if own.max_seconds:
            hours = min(hours, own.max_seconds / 3600)
        return Need(memory, trained, generated, hours, calls)

    def _rollouts(self, stage: Stage) -> Need:
        own, shape = self.recipe.rollouts, self.shape
        generated = self.recipe.prompts.held * own.samples * own.max_tokens
        if shape is None:
            return Need(None, 0, generated, None)
        length = PROMPT_TOKENS + own.max_tokens
        memory = PROGRAM_BYTES + 4 * shape.parameters
        memory += cache_memory(shape, own.batch_size, length)
        return Need(memory, 0, generated, self.hours(shape, 0, 0, generated))

    def _evaluate(self, stage: Stage) -> Need:
        config = self.recipe.evaluate
        calls = tuple(row for plan in plan_tasks(config) for row in forecast(plan, config))
        generated = sum(row.completion_tokens for row in calls if row.stage == "write")
        if self.shape is None:
            return Need(None, 0, generated, None, calls)
        memory = PROGRAM_BYTES + 4 * self.shape.parameters
        return Need(memory, 0, generated, self.hours(self.shape, 0, 0, generated), calls)
