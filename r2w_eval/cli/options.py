"""Click options made from `RunConfig`, and running async jobs: shared by all command modules."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import signal
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import click

from r2w_eval.config import RunConfig


def settings_options(
    *names: str, without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Click options for fields of RunConfig: those named, else all but `without`; help comes from
    the field.
    """
    fields = [f for f in dataclasses.fields(RunConfig) if f.name not in without]
    chosen = [f for f in fields if not names or f.name in names]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for setting in reversed(chosen):
            function = _option(setting)(function)
        return function

    return decorate


def _option(
    setting: dataclasses.Field[Any],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    flag = "--" + setting.name.replace("_", "-")
    metadata = setting.metadata
    shared: dict[str, Any] = {"help": metadata["help"], "default": None}
    if isinstance(setting.default, bool):
        return click.option(f"{flag}/--no-{setting.name.replace('_', '-')}", **shared)
    if isinstance(setting.default, tuple):
        return click.option(flag, multiple=True, metavar=metadata["metavar"], **shared)
    if "choices" in metadata:
        return click.option(flag, type=click.Choice(metadata["choices"]), **shared)
    kind: Any = {"int": int, "float": float, "int | None": int, "float | None": float}.get(
        str(setting.type), str
    )
    if kind is int and "min" in metadata:
        kind = click.IntRange(min=metadata["min"])
    shown = "" if setting.default in (None, "") else f"  [default: {setting.default}]"
    return click.option(flag, type=kind, **{**shared, "help": metadata["help"] + shown})


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """Only the flags that were on the command line."""
    return {name: value for name, value in flags.items() if value not in (None, ())}


def run_interruptibly(job: Coroutine[Any, Any, Any]) -> Any:
    """Run a job; SIGTERM ends it as Ctrl-C does, so that its results are written."""
    # a run holds millions of small records and hardly a cycle: looking for some took 8 % of its CPU
    gc.set_threshold(100_000, 50, 50)

    async def guarded() -> Any:
        task = asyncio.current_task()
        assert task is not None, "runs inside asyncio.run"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await job

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error
