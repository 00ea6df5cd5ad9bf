"""Turns failures of a training into clear errors: memory, disk; and silences TRL's warnings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r2w_eval.errors import R2WError

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


class OutOfMemory(R2WError):
    """A training step did not fit into memory; the message names the settings that reduce it."""


@contextmanager
def out_of_memory_named(settings: str) -> Iterator[None]:
    """Turn failed allocations, on a GPU or a CPU, into OutOfMemory; other errors pass."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(str(error)):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutOfMemory(
            f"out of memory: {first[:200]}. Lower {settings} in the recipe and run it again with "
            f"another --out; what was saved stays whole"
        ) from error


class NotWritten(R2WError):
    """A checkpoint or model could not be written to disk."""


@contextmanager
def full_disk_named(out: Path) -> Iterator[None]:
    """Turn what writers of weights raise on a full disk into NotWritten; other errors pass."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if not is_full_disk(str(error)):
            raise
        raise NotWritten(
            f"{out}: not written ({str(error)[:200]}). Make room and run the same command again: "
            f"it goes on from the last whole checkpoint"
        ) from error


def is_full_disk(message: str) -> bool:
    """Whether an error message means that the disk is full.

    >>> is_full_disk("Error while serializing: I/O error: No space left on device (os error 28)")
    True
    """
    signs = ("No space left", "iostream error", "PytorchStreamWriter failed", "unexpected pos")
    return any(sign in message for sign in signs)


def is_out_of_memory(message: str) -> bool:
    """Whether an error message means a failed allocation.

    >>> is_out_of_memory("CUDA out of memory. Tried to allocate 2.00 GiB")
    True
    """
    return any(sign in message.lower() for sign in _SIGNS)


@contextmanager
def without_missing_reward_texts() -> Iterator[None]:
    """Keep TRL from printing prompt and completion of each rollout without a reward.

    Such rollouts are counted in the log; text of models should not reach a terminal.
    """

    def is_wanted(record: logging.LogRecord) -> bool:
        return "All reward functions returned None" not in str(record.msg)

    logger = logging.getLogger("trl.trainer.grpo_trainer")
    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)
