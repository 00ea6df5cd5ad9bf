"""Click options made from `RunConfig`, and running async jobs: shared by all command modules."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import signal
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

import click

from r2w_eval.config import RunConfig

T = TypeVar("T")

# where --help shows a setting; what most runs name stands first, with the command's own options
SECTIONS: Mapping[str, str] = {
    "Which samples": "ids shuffle samples seed responses only_recorded only_complete",
    "How the writer writes": "backend model_args gen_kwargs extra_body system_prompt think_tags "
    "think_opened omit",
    "How judges judge": "mode combine min_valid_judges exclude_self judge_kwargs repeats "
    "score_mode",
    "Data": "data_dir include_path references baseline context pages pages_allow",
    "Requests and cache": "max_connections fixed_concurrency timeout retry_failed cache cache_dir "
    "replay",
    "Limits and cost": "min_coverage max_unscored max_cost prices progress_file",
}


class SectionedCommand(click.Command):
    """A command whose help shows the many settings of a run in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        section_of = {name: title for title, names in SECTIONS.items() for name in names.split()}
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *SECTIONS)}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None and isinstance(parameter, click.Option):
                rows[section_of.get(parameter.name or "", "Options")].append(row)
        for title, own in rows.items():
            if own:
                with formatter.section(title):
                    formatter.write_dl(own)


def settings_options(
    *names: str, without: Collection[str] = (), helps: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Click options for fields of RunConfig: those named, else all but `without`.

    The help is that of `helps`, where a command uses a setting in its own way, else the field's.
    """
    fields = [f for f in dataclasses.fields(RunConfig) if f.name not in without]
    chosen = [f for f in fields if not names or f.name in names]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for setting in reversed(chosen):
            function = _option(setting, (helps or {}).get(setting.name))(function)
        return function

    return decorate


def _option(
    setting: dataclasses.Field[Any], own_help: str | None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    flag = "--" + setting.name.replace("_", "-")
    metadata = setting.metadata
    shared: dict[str, Any] = {"help": own_help or _help(setting), "default": None}
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
    return click.option(flag, type=kind, **shared)


def _help(setting: dataclasses.Field[Any]) -> str:
    """The field's help with its default, where that says anything."""
    default, text = setting.default, str(setting.metadata["help"])
    if default is False or default in (None, "", ()):
        return text
    shown = ", ".join(default) if isinstance(default, tuple) else default
    return f"{text}  [default: {'yes' if default is True else shown}]"


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """Only the flags that were on the command line."""
    return {name: value for name, value in flags.items() if value not in (None, ())}


def run_interruptibly(job: Coroutine[Any, Any, T]) -> T:
    """Run a job; SIGTERM ends it as Ctrl-C does, so that its results are written."""
    # a run holds millions of small records and hardly a cycle: looking for some took 8 % of its CPU
    gc.set_threshold(100_000, 50, 50)

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None, "runs inside asyncio.run"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await job

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error
