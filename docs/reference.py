"""Reference pages generated from the code: commands from click, Python names from docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import click
import yaml


def commands_page() -> str:
    """Every command with its help and options, as `r2w-eval COMMAND --help` prints them."""
    from r2w_eval.cli import cli
    from r2w_eval.cli.examples import walk

    lines = [
        "# Commands",
        "",
        "Made from the program itself; `r2w-eval COMMAND --help` prints the same.",
        "`r2w-eval --model …` without a command is `r2w-eval run --model …`.",
        "",
    ]
    for path, command in walk(cli, "r2w-eval"):
        context = click.Context(command, info_name=path, max_content_width=96, terminal_width=96)
        lines += [f"## `{path}`", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def public_names(path: Path) -> dict[str, list[str]]:
    """The stable Python names, by module (docs/api.yaml)."""
    names: dict[str, list[str]] = yaml.safe_load(path.read_text("utf-8"))
    return names


def api_page(path: Path) -> str:
    """Signatures and docstrings of the stable names."""
    lines = [
        "# Python",
        "",
        "These names are stable: until 1.0 a change of one of them raises the minor version and",
        "stands in the changelog; from 1.0 on it raises the major version. So do the files of a",
        "run folder, the JSON lines of `r2w-eval score`, options, and exit codes. Every other",
        "name may change with any version.",
        "",
    ]
    for module, names in public_names(path).items():
        loaded = importlib.import_module(module)
        lines += [f"## `{module}`", "", _paragraphs(loaded), ""]
        for name in names:
            lines += _entry(name, getattr(loaded, name))
    return "\n".join(lines)


def _entry(name: str, value: Any) -> list[str]:
    kind = "class " if inspect.isclass(value) else ""
    lines = [f"### `{name}`", "", "```python", f"{kind}{name}{_signature(value)}", "```", ""]
    lines += [_paragraphs(value), ""]
    if inspect.isclass(value):
        for method, function in vars(value).items():
            public = not method.startswith("_") and inspect.isfunction(function)
            if public and function.__doc__:
                lines += [f"* `{method}{_signature(function)}`: {_first(function)}"]
        lines.append("")
    return lines


def _signature(value: Any) -> str:
    try:
        # addresses of default objects differ between builds
        return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(value)))
    except (TypeError, ValueError):
        return ""


def _first(value: Any) -> str:
    return _paragraphs(value).partition("\n\n")[0].replace("\n", " ")


def _paragraphs(value: Any) -> str:
    """The docstring, with indented and doctest parts as code blocks."""
    blocks = []
    for block in (inspect.getdoc(value) or "").split("\n\n"):
        if block.startswith((">>>", "    ", "  ")):
            block = f"```pycon\n{inspect.cleandoc(block)}\n```"
        blocks.append(block)
    return "\n\n".join(blocks)
