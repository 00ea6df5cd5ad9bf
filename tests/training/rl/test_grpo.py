"""The TRL seam on a toy policy: lambda 0 is the parent, more pays reflections on their tokens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the train extra: pip install 'r2w-eval[train]'")

from r2w_eval.reward_models.items import ItemScore, ItemStatus, ReflectionItem, failed
from r2w_eval.training.rl.advantages import LocalMapping
from r2w_eval.training.rl.completions import read_completion, reflections, template_tags
from toy_policy import (
    count_rain,
    grpo_config,
    make_policy,
    make_tokenizer,
    prompts,
    weights_of,
)

from r2w_eval.trace.types import TagSchema

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]
SCHEMA = TagSchema()


def rain_is_good(items: Sequence[ReflectionItem]) -> list[ItemScore]:
    """A process score that the outcome does not know: reflections that speak of rain."""
    return [ItemScore(item.id, 1.0 if "rain" in item.reflection else -1.0) for item in items]


def all_lost(items: Sequence[ReflectionItem]) -> list[ItemScore]:
    return [failed(item.id, ItemStatus.ERROR, "down") for item in items]


def train(folder: Path, mapping: LocalMapping | None, **changed: Any) -> Any:
    from r2w_eval.training.rl.grpo import ProcessGRPOTrainer, ShuffledGRPOTrainer
    from r2w_eval.training.trainer.callbacks import SeedEachStep
    from trl import GRPOTrainer

    resume = changed.pop("resume", None)
    kind = ShuffledGRPOTrainer if changed.pop("shuffled", False) else ProcessGRPOTrainer
    shared: dict[str, Any] = {
        "model": make_policy(),
        "reward_funcs": changed.pop("reward", count_rain),
        "train_dataset": prompts(),
        "processing_class": make_tokenizer(),
        "args": grpo_config(folder, **{k: v for k, v in changed.items() if k != "scores"}),
    }
    if mapping is None:
        trainer = GRPOTrainer(**shared)
    else:
        trainer = kind(
            **shared,
            score_reflections=changed.get("scores", rain_is_good),
            mapping=mapping,
            schema=SCHEMA,
        )
    trainer.add_callback(SeedEachStep(seed=3))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_lambda_0_gives_the_weights_of_the_parent_trainer_bit_for_bit(tmp_path: Path) -> None:
    small = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    plain = train(tmp_path / "a", None, **small)
    ours = train(tmp_path / "b", LocalMapping(weight=0.0), **small)
    assert weights_of(ours.model).equal(weights_of(plain.model))
    assert not weights_of(ours.model).equal(weights_of(make_policy()))


def test_a_process_term_changes_the_update_and_is_logged(tmp_path: Path) -> None:
    mapping = LocalMapping(weight=0.5, warmup_share=0.0)
    ours = train(tmp_path / "a", mapping)
    plain = train(tmp_path / "b", None)
    assert not weights_of(ours.model).equal(weights_of(plain.model))
    logged = {name for entry in ours.state.log_history for name in entry}
    measures = ("reflections", "without_reflection", "relative_size", "below_zero")
    assert {f"process/{name}" for name in measures} <= logged


def test_shuffled_scores_make_another_update_always_the_same_and_none_with_lambda_0(
    tmp_path: Path,
) -> None:
    def unequal(items: Sequence[ReflectionItem]) -> list[ItemScore]:
        return [ItemScore(item.id, n / len(items)) for n, item in enumerate(items, 1)]

    mapping = LocalMapping(weight=0.5, warmup_share=0.0, gate="always", baseline="mean")
    # long enough for several reflections a group
    how: dict[str, Any] = {"max_steps": 1, "max_completion_length": 60}
    paid = train(tmp_path / "a", mapping, scores=unequal, **how)
    shuffled = train(tmp_path / "b", mapping, scores=unequal, shuffled=True, **how)
    again = train(tmp_path / "c", mapping, scores=unequal, shuffled=True, **how)
    plain = train(tmp_path / "d", None, **how)
    off = train(tmp_path / "e", LocalMapping(weight=0.0), shuffled=True, **how)
    assert weights_of(shuffled.model).equal(weights_of(again.model))
    assert weights_of(off.model).equal(weights_of(plain.model))
    assert not weights_of(shuffled.model).equal(weights_of(paid.model))
    assert not weights_of(shuffled.model).equal(weights_of(plain.model))
    # the scores are those of before, on other reflections
    scores = [one.state.log_history[0]["process/score"] for one in (paid, shuffled)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("form", ["mean", "step_return", "return_to_go"])
def test_another_form_of_the_mapping_makes_another_update(tmp_path: Path, form: Any) -> None:
    once = {"max_steps": 1}
    local = train(tmp_path / "a", LocalMapping(weight=0.5, warmup_share=0.0), **once)
    other = train(tmp_path / "b", LocalMapping(form, weight=0.5, warmup_share=0.0), **once)
    assert not weights_of(other.model).equal(weights_of(local.model))


def test_micro_batches_change_the_memory_and_not_the_update(tmp_path: Path) -> None:
    # plain descent: the weights move by the gradient itself, so sums in another order stay near
    descent = {"optim": "sgd", "max_steps": 1}
    small = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    mapping = LocalMapping(weight=0.5, warmup_share=0.0)
    for loss in ("dapo", "dr_grpo", "grpo"):
        whole = train(tmp_path / "a", mapping, loss_type=loss, **descent)
        parts = train(tmp_path / "b", mapping, loss_type=loss, **descent, **small)
        moved = (weights_of(whole.model) - weights_of(make_policy())).abs().max()
        apart = (weights_of(parts.model) - weights_of(whole.model)).abs().max()
        assert float(moved) > 1e-5 and float(apart) < 1e-3 * float(moved), loss
        # one generation a step, so the group statistics are those of whole groups
        logged = [t.state.log_history[0]["process/reflections"] for t in (whole, parts)]
        assert logged[0] == logged[1]


def test_scores_that_are_all_invalid_train_as_without_them(tmp_path: Path) -> None:
    mapping = LocalMapping(weight=0.5, warmup_share=0.0)
    lost = train(tmp_path / "a", mapping, scores=all_lost)
    plain = train(tmp_path / "b", None)
    # the advantages have another shape on the way, so the sums may differ in their last bit
    difference = (weights_of(lost.model) - weights_of(plain.model)).abs().max()
    assert float(difference) < 1e-6


def test_advantages_are_the_outcome_plus_the_local_term_on_reflections(tmp_path: Path) -> None:
    from r2w_eval.training.rl.grpo import ProcessGRPOTrainer

    seen: list[tuple[dict[str, Any], list[Any]]] = []

    class Watched(ProcessGRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            output = super()._generate_and_score_completions(inputs)
            assert self._scored is not None
            seen.append((output, self._scored.result()))
            return output

    trainer = Watched(
        model=make_policy(),
        reward_funcs=count_rain,
        train_dataset=prompts(),
        processing_class=make_tokenizer(),
        args=grpo_config(tmp_path, max_steps=2),
        score_reflections=rain_is_good,
        mapping=LocalMapping(weight=0.5, warmup_share=0.0),
        schema=SCHEMA,
    )
    trainer.train()
    n_paid = 0
    for output, rollouts in seen:
        advantages, mask = output["advantages"], output["completion_mask"]
        assert advantages.shape == mask.shape
        assert not advantages[mask == 0].any()
        for row, rollout in zip(advantages, rollouts, strict=True):
            own = row[: rollout.n_tokens]
            outside = own.new_ones(own.shape).bool()
            for segment in rollout.segments:
                outside[segment.start : segment.end] = False
            values = own[outside]
            assert values.numel() == 0 or float(values.max() - values.min()) < 1e-6
            n_paid += int((own[~outside] != 0).any())
    assert n_paid > 0


def test_effects_by_scores_reach_the_reflections_and_are_logged(tmp_path: Path) -> None:
    from r2w_eval.training.rl.effects import EffectSettings, WithEffects
    from r2w_eval.training.rl.grpo import ProcessGRPOTrainer
    from toy_scorer import Rain

    def trace(*versions: str) -> str:
        draft, *rest = versions
        steps = [f"<reflection> sun </reflection> <revision> {one} </revision>" for one in rest]
        return " ".join(["<draft>", draft, "</draft>", *steps, "</think>", versions[-1], "<eos>"])

    gained, cycle = trace("rain", "rain rain"), trace("rain rain", "sun", "rain rain")
    told: list[list[float | None]] = []

    class Scripted(ProcessGRPOTrainer):
        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **more: Any) -> Any:
            texts = [gained, cycle, trace("sun", "rain"), trace("sun")] * (len(prompt_ids) // 4)
            return [self.processing_class(text)["input_ids"] for text in texts], None

        def _read_rollouts(self, prompts: Any, ids: Any) -> Any:
            found = super()._read_rollouts(prompts, ids)
            told.extend([[segment.score for segment in one.segments] for one in found])
            return found

    neutral: Any = Neutral()
    # a rain is 4.5 points of a scorer in [-1, 1]; two of them are worth 1
    settings = EffectSettings("scored", reference=9.0)
    trainer = Scripted(
        model=make_policy(),
        reward_funcs=count_rain,
        train_dataset=prompts(),
        processing_class=make_tokenizer(),
        args=grpo_config(tmp_path, max_steps=1, max_completion_length=24),
        score_reflections=WithEffects(neutral, Rain(), settings).score,
        mapping=LocalMapping(weight=0.5, warmup_share=0.0),
        schema=SCHEMA,
    )
    trainer.train()
    one = [[0.15], [-0.3, 0.0], [0.15], []]
    assert [[round(score or 0.0, 9) for score in own] for own in told] == one * 2
    log = trainer.state.log_history[0]
    assert log["process/effect"] == pytest.approx(0.0) and log["process/without_effect"] == 0.0


class Neutral:
    """A process scorer without an opinion."""

    id = "neutral"

    def score(self, items: Sequence[ReflectionItem]) -> list[ItemScore]:
        return [ItemScore(item.id, 0.0) for item in items]


def test_a_resumed_training_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    mapping = LocalMapping(weight=0.5, warmup_share=0.0)
    whole = train(tmp_path / "a", mapping, max_steps=3, save_strategy="steps", save_steps=1)
    for step in (1, 2):
        checkpoint = str(tmp_path / "a" / f"checkpoint-{step}")
        again = train(tmp_path / "b", mapping, max_steps=3, resume=checkpoint)
        assert weights_of(again.model).equal(weights_of(whole.model)), step


def test_the_pinned_trl_still_has_the_seam() -> None:
    from trl import GRPOTrainer

    parameters = inspect.signature(GRPOTrainer._calculate_rewards).parameters
    assert list(parameters) == ["self", "inputs", "prompts", "completions", "completion_ids_list"]
    assert list(inspect.signature(GRPOTrainer._generate_and_score_completions).parameters) == [
        "self",
        "inputs",
    ]
    loss = inspect.getsource(GRPOTrainer._compute_loss)
    assert "advantages.dim() == 1" in loss, "TRL no longer takes (batch, tokens) advantages"


def test_reflections_are_found_on_the_policys_own_tokens() -> None:
    tokenizer = make_tokenizer()
    text = "<draft> sun </draft> <reflection> rain rain </reflection> <revision> sun </revision>"
    ids = tokenizer(text)["input_ids"]
    trace = read_completion(ids, tokenizer.decode, SCHEMA, template_tags(tokenizer))
    (found,) = reflections(trace, "p", "0")
    # this tokenizer's decoder writes the blank before the closing tag as a part of it
    assert tokenizer.decode(ids[found.span.start : found.span.end]).startswith("rain rain")
    assert (found.item.draft.strip(), str(found.item.revision).strip()) == ("sun", "sun")
