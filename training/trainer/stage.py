"""What supervised fine-tuning and reinforcement learning share: running a trainer to its end.

It resumes from the last complete checkpoint, turns failures into clear errors, evaluates
checkpoints meanwhile, and writes the model at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r2w_eval.training.checkpoints.folders import Checkpoint, half_written, resume_from
from r2w_eval.training.checkpoints.validation import (
    EvaluationSettings,
    best_checkpoint,
    tell_uncompared,
)
from r2w_eval.training.specials import special_tokens
from r2w_eval.training.trainer.faults import full_disk_named, out_of_memory_named
from r2w_eval.training.trainer.hub import fetch_checkpoint, split_revision

from r2w_eval.errors import UsageError
from r2w_eval.models.fingerprint import describe_commit
from r2w_eval.models.local import end_tokens
from r2w_eval.ranks import is_first, n_processes, on_first
from r2w_eval.store import write_json

# how accelerate names launches in which every process has all weights
WHOLE = ("NO", "MULTI_CPU", "MULTI_GPU")
EMBEDDED = "smollm2"
# what the trainer logged, by step
HISTORY = "history.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training stage.

    model: the model's folder
    n_rows, n_too_long: rows used, and left out for their length
    loss: the last logged loss, in RL the last reward
    notes: for the reader: incomplete checkpoints, which checkpoint was kept, missing rewards
    """

    model: Path
    n_rows: int
    n_too_long: int
    steps: int
    loss: float | None
    notes: tuple[str, ...] = field(default=())


def model_folder(model: str) -> str:
    """A model name as transformers takes it: the embedded model and hub ids with a revision become
    folders, all others are returned unchanged. Raises UsageError.
    """
    if model == EMBEDDED:
        from r2w_eval.models.embedded import convert_to_hf

        return on_first(lambda: str(convert_to_hf()))
    if split_revision(model)[1] is None:
        return model
    return on_first(lambda: str(fetch_checkpoint(model)))


def commit_notes(model: str, config: Any) -> tuple[str, ...]:
    """Notes on which commit was used for a hub id without a revision, and how to pin it."""
    return tuple(
        f"{model} stood for commit {commit}: name {model}@{commit} to train the same again"
        for commit in describe_commit(model, config).values()
    )


def load_tokenizer(model: str, **options: Any) -> Any:
    """The tokenizer of a model. Raises UsageError if it has no chat template."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model_folder(model), **options)
    if not tokenizer.chat_template:
        raise UsageError(
            f"model {model!r}: the tokenizer has no chat template, as those of many base models, "
            f"so there is no way to put a prompt to it. Try its instruction-tuned sibling, or a "
            f"copy of its folder with a chat_template.jinja that keeps <think>"
        )
    return tokenizer


def check_end_of_turn(model: str, tokenizer: Any, generation_config: Any) -> None:
    """Raise UsageError if the chat template ends a turn with a token that generation does not stop
    at, as those of many base models do: every text would go on to its limit.
    """
    said = [{"role": "user", "content": "Write."}, {"role": "assistant", "content": "Done."}]
    whole: str = tokenizer.apply_chat_template(said, tokenize=False)
    tail = whole.rpartition("Done.")[2]
    special = special_tokens(tokenizer)
    found = [(tail.find(token), number) for number, token in special.items() if token in tail]
    ends = end_tokens(generation_config, tokenizer)
    if found and (number := min(found)[1]) not in ends:
        token = special[number]
        stops = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(sorted(ends)))) or "nothing"
        raise UsageError(
            f"model {model!r}: its chat template ends a turn with {token!r}, and it stops at "
            f"{stops}: texts would go on to their limit. Add {token!r} to eos_token_id in the "
            f"generation_config.json of a copy of its folder, or try its instruction-tuned sibling"
        )


def device_arguments() -> dict[str, Any]:
    """Trainer arguments for this device: bf16 on a GPU that supports it, float32 on a CPU.

    The trainer's filter of NaN losses is off: it would log earlier means instead, and
    StopOnBrokenLoss would never see them. Raises UsageError for several GPUs in one process.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if n_processes() == 1 and (n_gpus := torch.cuda.device_count()) > 1:
        # the trainer would give each GPU a batch, and a step would have several
        raise UsageError(
            f"{n_gpus} GPUs for one process. Set CUDA_VISIBLE_DEVICES=0, or use all of them: "
            f"accelerate launch --num_processes {n_gpus} -m r2w_eval train …"
        )
    return {
        "bf16": has_gpu and torch.cuda.is_bf16_supported(),
        "use_cpu": not has_gpu,
        "logging_nan_inf_filter": False,
    }


def fit(
    trainer: Any,
    tokenizer: Any,
    out: Path,
    evaluation: EvaluationSettings,
    memory: str,
    end: int | None = None,
) -> tuple[str, ...]:
    """Train to the end and write `out/model`; notes for the reader.

    `memory` names the settings that make a step smaller; `end` is the step at which a callback is
    known to end the training. Raises OutOfMemory, NotWritten, TrainingBroke.
    """
    folder = out / "checkpoints"
    notes = [f"{path.name} is half-written and was left out" for path in half_written(folder)]
    if evaluation.is_on:
        from r2w_eval.training.trainer.callbacks import EvaluateOnSave

        trainer.add_callback(EvaluateOnSave(folder, evaluation))
    with out_of_memory_named(memory), full_disk_named(folder):
        trainer.train(resume_from_checkpoint=resume_from(folder, end))
    if is_first():
        write_json(out / HISTORY, [finite(entry) for entry in trainer.state.log_history])
    with full_disk_named(out / "model"):
        return (*notes, *_save_chosen(trainer, tokenizer, out, evaluation))


def _save_chosen(
    trainer: Any, tokenizer: Any, out: Path, evaluation: EvaluationSettings
) -> tuple[str, ...]:
    """Write the last state or the best checkpoint as the model; notes on which it is."""
    folder = out / "checkpoints"
    wants_best = evaluation.is_on and evaluation.keep == "best"
    best = on_first(lambda: best_checkpoint(folder)) if wants_best else None
    notes = tell_uncompared(folder) if wants_best else ()
    if best is None or best.step == trainer.state.global_step:
        save_last(trainer, tokenizer, out / "model")
        is_unscored = wants_best and best is None
        unscored = "no checkpoint was scored: the model is the last state"
        return (unscored,) if is_unscored else notes
    if is_first():
        save_model(load_checkpoint(best), tokenizer, out / "model")
    return (
        f"the model is {best.path.name}, the best by validation; training ended at step "
        f"{trainer.state.global_step}",
        *notes,
    )


def save_last(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Write the current weights on rank 0; shards are gathered from all ranks.

    Raises UsageError for sharded adapters, which cannot be merged.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if n_processes() == 1 or trainer.accelerator.distributed_type in WHOLE:
        if is_first():
            save_model(model, tokenizer, folder)
        return
    if hasattr(model, "merge_and_unload"):
        raise UsageError(
            "sft.lora_rank with weights spread over processes: adapters are merged on whole "
            "weights. Set lora_rank: 0, or launch without FSDP and DeepSpeed"
        )
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if is_first():
        save_model(model, tokenizer, folder, state)


def load_checkpoint(checkpoint: Checkpoint) -> Any:
    """Load the model of a checkpoint, with its adapters if it has any."""
    if (checkpoint.path / "adapter_config.json").is_file():
        from peft import AutoPeftModelForCausalLM

        return AutoPeftModelForCausalLM.from_pretrained(checkpoint.path)
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint.path)


def save_model(model: Any, tokenizer: Any, folder: Path, state: Any = None) -> None:
    """Write weights and tokenizer. Adapters are merged, so that every engine can load the model;
    `state` replaces the model's own weights if given.
    """
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    # the trainer switches it off while training
    model.config.use_cache = True
    model.save_pretrained(folder, state_dict=state, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A log entry in strict JSON: numbers that are not finite become None.

    >>> finite({"loss": float("nan"), "step": 1})
    {'loss': None, 'step': 1}
    """
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in entry.items()
    }


def last_value(history: Sequence[dict[str, Any]], name: str) -> float | None:
    """The last finite value logged under this name; None without one.

    >>> last_value([{"loss": 2.0}, {"loss": None}, {"reward": 1.0}], "loss")
    2.0
    """
    found = [float(entry[name]) for entry in history if entry.get(name) is not None]
    return next((value for value in reversed(found) if math.isfinite(value)), None)
