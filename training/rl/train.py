"""Reinforcement learning: outcome rewards on answers, process rewards on reflections.

GRPO in TRL with a process term on tokens (grpo.py). A rollout without a valid reward is left out of
its group; it never gets 0. Steps are seeded by their number and the order of prompts is fixed
beforehand, so a resumed training continues like an uninterrupted one (specification: r2write.md
section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.checks.report import require_valid
from r2w_eval.reward_models.scorer import ItemScorer, open_scorer
from r2w_eval.training.journal import Journal, Role
from r2w_eval.training.judging.rubrics import Rubric, complete_rubrics
from r2w_eval.training.prompts import Prompt, lay_out
from r2w_eval.training.rl.completions import template_tags
from r2w_eval.training.rl.contests import InGroup, Pairwise
from r2w_eval.training.rl.effects import with_effects
from r2w_eval.training.rl.outcomes import (
    RUBRIC_DECODING,
    GroupReward,
    JudgedOutcome,
    Pointwise,
    ScorerOutcome,
    open_judge,
)
from r2w_eval.training.rl.penalties import Penalised
from r2w_eval.training.rl.reference_file import Ranked, match_references, read_reference_file
from r2w_eval.training.rl.references import (
    SCHEDULE,
    AgainstReferences,
    ReferenceSchedule,
    RisingReferences,
)
from r2w_eval.training.rl.settings import RLSettings
from r2w_eval.training.trainer.faults import without_missing_reward_texts
from r2w_eval.training.trainer.stage import (
    Trained,
    check_end_of_turn,
    commit_notes,
    device_arguments,
    fit,
    last_value,
    load_tokenizer,
    model_folder,
)
from r2w_eval.training.trainer.trackers import tracking_arguments

from r2w_eval.errors import UsageError
from r2w_eval.hashing import content_hash
from r2w_eval.models.thinking import ThinkTags
from r2w_eval.ranks import n_processes, on_first
from r2w_eval.trace.types import TagSchema

MEMORY = "rl.micro_batch, rl.groups_per_call or rl.max_completion_tokens"


def open_outcome(
    settings: RLSettings, prompts: Sequence[Prompt], out: Path, tags: ThinkTags
) -> Any:
    """The outcome reward function for TRL that the settings name.

    Raises UsageError, EndpointDown.
    """
    if settings.outcome_form == "scorer":
        scorer = open_scorer(settings.outcome, settings.patience_s)
        return ScorerOutcome(scorer, settings.unanswered, tags)
    judge = open_judge(settings.outcome, settings.patience_s)
    rubrics: dict[str, Rubric] = {}
    references: dict[str, Ranked] = {}
    schedule = None
    if settings.outcome_form == "references":
        references = match_references(read_reference_file(Path(settings.references)), prompts)
        schedule = ReferenceSchedule(out / SCHEDULE) if settings.rising_references else None
    forms: Mapping[str, Callable[[], GroupReward]] = {
        "pointwise": lambda: Pointwise(judge, rubrics),
        "pairwise": lambda: Pairwise(judge, settings.opponents),
        "in_group": lambda: InGroup(judge, settings.seed),
        "references": lambda: AgainstReferences(judge, references, schedule),
    }
    reward = forms[settings.outcome_form]()
    outcome = JudgedOutcome(judge, reward, settings.group, settings.unanswered, tags)
    chat = outcome.run(judge.open())
    if settings.outcome_form == "pointwise":
        role = Role(chat, RUBRIC_DECODING, judge.tags)
        rubrics |= on_first(lambda: _complete_rubrics(outcome, role, prompts, out))
    if schedule is None:
        return outcome
    return RisingReferences(outcome, schedule, references, settings.group)


def _complete_rubrics(
    outcome: JudgedOutcome, role: Role, prompts: Sequence[Prompt], out: Path
) -> dict[str, Rubric]:
    """The rubric of each prompt by its text; the judge proposes those that are missing."""
    with Journal(out / "rubrics.jsonl") as journal:
        made: dict[str, Rubric] = outcome.run(complete_rubrics(prompts, journal, role))
        return made


def train_rl(
    settings: RLSettings, prompts: Sequence[Prompt], out: Path, last_step: Path | None = None
) -> Trained:
    """Train and write `out/model`. Raises UsageError for an unknown scorer or judge.

    `last_step` is the file through which concurrent trainings agree on their last step.
    """
    from datasets import Dataset
    from r2w_eval.training.rl.grpo import ProcessGRPOTrainer, ShuffledGRPOTrainer
    from r2w_eval.training.trainer.callbacks import (
        SeedEachStep,
        StopOnBrokenLoss,
        StopTogether,
        agreed_step,
    )

    process = _open_process(settings, out)
    source = model_folder(settings.model)
    tokenizer = load_tokenizer(source)
    groups_per_step = settings.groups_per_step * n_processes()
    rows = lay_out(prompts, settings.steps * groups_per_step, settings.seed)
    tags = template_tags(tokenizer)
    outcome = open_outcome(settings, prompts, out, tags)
    if settings.penalties.is_on:
        outcome = Penalised(outcome, settings.penalties, tokenizer, tags)
    kind = ShuffledGRPOTrainer if settings.shuffled else ProcessGRPOTrainer
    trainer = kind(
        model=source,
        reward_funcs=[outcome],
        args=grpo_config(settings, out),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": prompt.prompt}]} for prompt in rows]
        ),
        processing_class=tokenizer,
        callbacks=[SeedEachStep(settings.seed), StopOnBrokenLoss()],
        score_reflections=None if process is None else process.score,
        mapping=settings.process_mapping,
        schema=TagSchema(),
        groups_per_call=settings.groups_per_call,
        half_generation=settings.half_generation,
        graphed_generation=settings.graphed_generation,
    )
    agreed = last_step or last_step_file(settings, out)
    end = on_first(lambda: agreed_step(agreed))
    if settings.max_seconds:
        saves = settings.evaluation.is_on
        trainer.add_callback(StopTogether(agreed, settings.max_seconds, saves=saves))
    check_end_of_turn(settings.model, tokenizer, trainer.model.generation_config)
    named = commit_notes(source, trainer.model.config)
    with without_missing_reward_texts():
        notes = fit(trainer, tokenizer, out, settings.evaluation, MEMORY, end)
    history = trainer.state.log_history
    return Trained(
        out / "model",
        len(rows),
        0,
        trainer.state.global_step,
        last_value(history, "reward"),
        (
            *named,
            *notes,
            *end_notes(trainer.state.global_step, settings, agreed_step(agreed)),
            *reward_notes(history, settings),
        ),
    )


def _open_process(settings: RLSettings, out: Path) -> ItemScorer | None:
    """The scorer of reflections, which must be valid, with effects; None if the weight is 0, since
    it is not asked then. Raises UsageError.
    """
    if not settings.process_mapping.weight:
        return None
    process = open_scorer(settings.process, settings.patience_s)
    on_first(lambda: require_valid(process, settings.validity, out))
    return with_effects(process, settings.effect, settings.patience_s)


def last_step_file(settings: RLSettings, folder: Path) -> Path:
    """The file of the common last step, shared by settings that differ in model, seed or lambda."""
    mapping = replace(settings.process_mapping, weight=0.0)
    common = replace(settings, model="", seed=0, process_mapping=mapping)
    return folder / f"last-step-{content_hash(common.work(), 8)}"


def end_notes(step: int, settings: RLSettings, common: int | None) -> list[str]:
    """Notes on a training that ended at `step`; `common` is the last step of its arms, if known.

    >>> timed = RLSettings(steps=100, max_seconds=9.0)
    >>> [len(end_notes(step, timed, end)) for step, end in ((100, 101), (52, 52), (60, 52))]
    [0, 1, 2]
    """
    notes = []
    if step < settings.steps:
        notes.append(f"ended at step {step} of {settings.steps}: max_seconds or a decline")
    if common is not None and step != (last := min(common, settings.steps)):
        way = "was ahead of" if step > last else "ended before"
        notes.append(
            f"this arm {way} the common last step {last}, so that the arms are not of equal steps. "
            f"Remove its folder and train it again, with fewer at a time (--jobs 1)"
        )
    return notes


def grpo_config(settings: RLSettings, out: Path) -> Any:
    """TRL's settings of the stage; checkpoints go to `out/checkpoints`. Raises UsageError when vLLM
    or a tracker is wanted and not there.
    """
    from importlib.util import find_spec

    from trl import GRPOConfig

    if settings.vllm and find_spec("vllm") is None:
        raise UsageError("rl.vllm: vLLM is not installed here. Set vllm: false, or install it")
    return GRPOConfig(
        output_dir=str(out / "checkpoints"),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.rollouts_per_pass,
        # all rollouts of a step are generated and rewarded together, so groups stay whole
        gradient_accumulation_steps=settings.rollouts // settings.rollouts_per_pass,
        num_generations=settings.group,
        max_completion_length=settings.max_completion_tokens,
        temperature=settings.temperature,
        learning_rate=settings.learning_rate,
        loss_type=settings.loss,
        beta=settings.beta,
        use_vllm=settings.vllm,
        vllm_mode="colocate",
        save_steps=settings.save_steps,
        lr_scheduler_type=settings.schedule,
        shuffle_dataset=False,
        seed=settings.seed,
        logging_steps=1,
        **tracking_arguments(settings.report_to, out),
        **device_arguments(),
    )


def reward_notes(history: Sequence[dict[str, Any]], settings: RLSettings) -> list[str]:
    """Notes on what was missing over the whole training: rewards, groups, reflections, effects.

    >>> log = [{"outcome/invalid": 3.0, "outcome/groups_without_reward": 1.0,
    ...         "process/without_reflection": 1.0}]
    >>> len(reward_notes(log, RLSettings()))
    3
    """
    steps = [entry for entry in history if "outcome/invalid" in entry]
    if not steps:
        return []
    n_groups = len(steps) * settings.groups_per_step * n_processes()
    invalid = round(sum(entry["outcome/invalid"] for entry in steps))
    lost = round(sum(entry["outcome/groups_without_reward"] for entry in steps))
    silent = sum(entry.get("process/without_reflection") == 1.0 for entry in steps)
    bare = round(sum(entry.get("process/without_effect", 0.0) for entry in steps))
    found = {
        f"{invalid} of {n_groups * settings.group} rollouts had no valid reward": invalid,
        f"{lost} of {n_groups} groups had none at all and gave no gradient": lost,
        f"{silent} of {len(steps)} steps had no tagged reflection in any rollout": silent,
        f"{bare} reflections had no effect: a text before or after them had no score": (
            bare if settings.effect.form != "none" else 0
        ),
    }
    return [note for note, n in found.items() if n]
