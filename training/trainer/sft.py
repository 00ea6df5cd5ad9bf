"""Supervised fine-tuning on traces, with the loss on thinking and answer but not on the prompt.

It uses TRL's SFTTrainer on prompt-completion rows. Tags are plain text, so the tokenizer is not
changed (specification: r2write.md section 4). A killed training resumes from its last complete
checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.training.checkpoints.validation import EvaluationSettings
from r2w_eval.training.limits import COUNT, NOT_NEGATIVE, POSITIVE, SEED, check_numbers
from r2w_eval.training.specials import special_tokens
from r2w_eval.training.trainer.stage import (
    EMBEDDED,
    Trained,
    check_end_of_turn,
    commit_notes,
    device_arguments,
    fit,
    last_value,
    load_tokenizer,
    model_folder,
)
from r2w_eval.training.trainer.trackers import Tracker, tracking_arguments

from r2w_eval.data import read_jsonl
from r2w_eval.errors import UsageError
from r2w_eval.hashing import to_plain
from r2w_eval.models.thinking import ThinkTags


@dataclass(frozen=True)
class SFTSettings:
    """Values of the stage; defaults are starting points of this project (r2write.md section 4).

    model: checkpoint folder, hub id (org/name@REVISION stays with one), or smollm2 (embedded)
    learning_rate, epochs: as in transformers
    batch_size, accumulate: rows per forward pass and passes per step, on each process
    max_tokens: longer rows are left out and counted, never truncated
    lora_rank: rank of low-rank adapters on all linear layers; 0: train all weights
    packing: pack several rows into one sequence
    save_steps: steps between checkpoints; 0: none but the final model
    seed: of order and dropout
    evaluation: of each checkpoint, while training goes on
    report_to: experiment trackers that losses are also sent to; no part of the stage's identity
    """

    model: str = EMBEDDED
    learning_rate: float = 2e-5
    epochs: float = 3.0
    batch_size: int = 2
    accumulate: int = 8
    max_tokens: int = 2048
    lora_rank: int = 0
    packing: bool = False
    save_steps: int = 100
    seed: int = 0
    evaluation: EvaluationSettings = EvaluationSettings()
    report_to: tuple[Tracker, ...] = ()

    def work(self) -> dict[str, Any]:
        """The settings that affect the model, as plain values."""
        return {name: value for name, value in to_plain(self).items() if name != "report_to"}

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of its range, and for evaluations of no checkpoint."""
        allowed = {
            POSITIVE: ("learning_rate", "epochs"),
            COUNT: ("batch_size", "accumulate", "max_tokens"),
            NOT_NEGATIVE: ("lora_rank", "save_steps"),
            SEED: ("seed",),
        }
        check_numbers("sft", self, allowed)
        if self.evaluation.is_on and not self.save_steps:
            raise UsageError(
                f"sft.save_steps 0 with sft.evaluation.tasks {self.evaluation.tasks!r}: no "
                f"checkpoint would be there to be evaluated. Set save_steps, as in save_steps: 100"
            )


def to_row(trace: dict[str, Any]) -> dict[str, Any]:
    """The prompt-completion row of a trace (`TrainingTrace` as JSON)."""
    content = f"<think>\n{trace['thinking']}\n</think>\n\n{trace['answer']}"
    return {
        "prompt": [{"role": "user", "content": trace["prompt"]}],
        "completion": [{"role": "assistant", "content": content}],
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a trace file. Raises UsageError if it is empty, or for a trace with a tag of
    thinking in one of its texts: a policy would learn to answer in the middle of a thought.
    """
    rows, tags = [], ThinkTags()
    for trace in read_jsonl(path):
        rows.append(to_row(trace))
        texts = trace["thinking"], trace["answer"]
        if any(tag in text for tag in (tags.open, tags.close) for text in texts):
            raise UsageError(
                f"{path}: trace {str(trace.get('id'))[:80]!r} holds a <think> or </think> of its "
                f"own, which ends or begins thinking there. Take that line out of the file"
            )
    if not rows:
        raise UsageError(
            f"{path}: no traces. Try: r2w-eval train synth, or --expert for real edits"
        )
    return rows


def specials_in(row: dict[str, Any], tokenizer: Any) -> list[str]:
    """The tokenizer's special tokens that stand in the row's texts. They would be no text: an end
    of turn in the middle of an answer is learned as an end of turn.
    """
    texts = [turn["content"] for turn in (*row["prompt"], *row["completion"])]
    tags = (ThinkTags().open, ThinkTags().close)
    own = (token for token in special_tokens(tokenizer).values() if token not in tags)
    return [token for token in own if any(token in text for text in texts)]


def is_usable(row: dict[str, Any], tokenizer: Any, max_tokens: int) -> bool:
    """Whether a row is trained on: it fits, and holds no special token."""
    return fits(row, tokenizer, max_tokens) and not specials_in(row, tokenizer)


def fits(row: dict[str, Any], tokenizer: Any, max_tokens: int) -> bool:
    """Whether a rendered row has at most `max_tokens` tokens."""
    text = tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], tokenize=False)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= max_tokens


def train_sft(settings: SFTSettings, rows: Sequence[dict[str, Any]], out: Path) -> Trained:
    """Train and write `out/model`. Raises UsageError if no row fits, or without a
    chat template.
    """
    from datasets import Dataset
    from r2w_eval.training.trainer.callbacks import StopOnBrokenLoss
    from trl import SFTTrainer

    source = model_folder(settings.model)
    tokenizer = load_tokenizer(source)
    short = [row for row in rows if fits(row, tokenizer, settings.max_tokens)]
    kept = [row for row in short if not specials_in(row, tokenizer)]
    if not short:
        raise UsageError(
            f"all {len(rows)} traces are longer than max_tokens {settings.max_tokens}. Raise "
            f"sft.max_tokens in the recipe"
        )
    if not kept:
        raise UsageError(
            f"all {len(short)} traces hold special tokens of the tokenizer, as "
            f"{', '.join(specials_in(short[0], tokenizer))}. Take these out of their texts"
        )
    trainer = SFTTrainer(
        model=source,
        args=sft_config(settings, out),
        train_dataset=Dataset.from_list(kept),
        processing_class=tokenizer,
        peft_config=lora(settings.lora_rank),
        callbacks=[StopOnBrokenLoss()],
    )
    check_end_of_turn(settings.model, tokenizer, trainer.model.generation_config)
    named = commit_notes(source, trainer.model.config)
    memory = "sft.max_tokens or sft.batch_size (raise accumulate by as much), or set lora_rank,"
    notes = (*named, *fit(trainer, tokenizer, out, settings.evaluation, memory))
    if special := len(short) - len(kept):
        notes = (*notes, f"{special} rows hold special tokens of the tokenizer and were left out")
    last = last_value(trainer.state.log_history, "loss")
    too_long = len(rows) - len(short)
    return Trained(out / "model", len(kept), too_long, trainer.state.global_step, last, notes)


def sft_config(settings: SFTSettings, out: Path) -> Any:
    """TRL's settings of the stage; checkpoints go to `out/checkpoints`. Raises UsageError."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(out / "checkpoints"),
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        max_length=settings.max_tokens,
        packing=settings.packing,
        save_strategy="steps" if settings.save_steps else "no",
        save_steps=settings.save_steps or 500,
        # all stay while they wait for their evaluation
        save_total_limit=None if settings.evaluation.is_on else 2,
        seed=settings.seed,
        logging_steps=1,
        **tracking_arguments(settings.report_to, out),
        **device_arguments(),
    )


def lora(rank: int) -> Any:
    """The configuration of adapters on all linear layers; None for full training."""
    if not rank:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
