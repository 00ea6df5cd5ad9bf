"""Help shows examples; every command that help or a page shows is one that the program takes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from support import ROOT

from r2w_eval.cli import cli
from r2w_eval.cli.examples import EXAMPLES, walk
from r2w_eval.cli.options import SECTIONS
from r2w_eval.config import RunConfig
from r2w_eval.judge_check.labelled import choose_sets

_FENCE = re.compile(r"^```(?:bash|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n)+")
_COMMAND = re.compile(
    r"^(?:\$ )?(?:[A-Z]\w*=\S+ )*(?:accelerate launch [^\n]*-m (?=r2w_eval ))?"
    r"(r2w[-_]eval (?:[^\n]*\\\n)*[^\n]*)$",
    re.MULTILINE,
)
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "tasks").rglob("README.md")),
    *sorted((ROOT / "reward_models").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "training").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
]


def commands_of(text: str) -> Iterator[str]:
    """The r2w-eval commands of some lines, without continuation marks and pipes."""
    for match in _COMMAND.finditer(text):
        line = match[1].replace("\\\n", " ")
        yield re.split(r" (?:\||&&|>|2>|&)(?: |$)|;(?= )", line)[0]


@pytest.fixture
def take(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Parses a command as the program does, and runs nothing."""
    called: list[str] = []

    def note(**parameters: Any) -> None:
        called.append("once")
        # names that no parser checks
        choose_sets(parameters.get("sets") or "")

    for _, command in walk(cli, "r2w-eval"):
        if not isinstance(command, click.Group):
            monkeypatch.setattr(command, "callback", note)
            for parameter in command.params:
                if isinstance(parameter.type, click.Path):
                    monkeypatch.setattr(parameter.type, "exists", False)

    def parse(line: str) -> None:
        called.clear()
        # not shlex's comments, which begin within a word too: http://HOST/v1#NAME
        words = shlex.split(re.sub(r"\s#\s.*", "", line))[1:]
        cli.main([word for word in words if word != "…"], standalone_mode=False)
        assert called or {"--help", "--version"} & set(words), line

    return parse


def test_every_command_has_examples_and_each_is_taken(take: Callable[[str], None]) -> None:
    assert set(EXAMPLES) == {path for path, _ in walk(cli, "r2w-eval")}
    for path, text in EXAMPLES.items():
        lines = list(commands_of(text))
        assert lines or "r2w-eval list" in text, path
        for line in lines:
            take(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_page_is_taken(page: Path, take: Callable[[str], None]) -> None:
    text = page.read_text("utf-8")
    blocks = [fence[1] for fence in _FENCE.finditer(text)]
    blocks += [textwrap.dedent(block[0]) for block in _INDENTED.finditer(text)]
    for block in blocks:
        for line in commands_of(block):
            take(line)


def test_help_shows_examples_before_options() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "r2w_eval", "compare", "--help"], capture_output=True, text=True
    )
    text = done.stdout
    assert text.index("Examples:") < text.index("r2w-eval compare runs/a") < text.index("Options:")


def test_lists_of_commands_cut_no_sentence() -> None:
    for path, command in walk(cli, "r2w-eval"):
        text = click.Context(command, info_name=path, terminal_width=80).get_help()
        listed = text.partition("\nCommands:\n")[2]
        assert "..." not in listed, path
        assert "\n      " not in text.partition("\nOptions:\n")[0].partition("Examples:")[0], path


def test_every_setting_stands_once_in_the_help_of_a_run_with_its_default() -> None:
    names = {field.name for field in fields(RunConfig)}
    placed = [name for own in SECTIONS.values() for name in own.split()]
    assert set(placed) < names and len(placed) == len(set(placed))
    text = click.Context(cli.commands["run"], terminal_width=80).get_help()
    for name in names:
        assert len(re.findall(rf"^  --{name.replace('_', '-')}(?= )", text, re.MULTILINE)) == 1
    assert text.index("--dry-run") < text.index("\nWhich samples:\n") < text.index("--ids")
    plain = " ".join(text.split())
    assert "derives its own from it. [default: 0]" in plain
    assert "or none. [default: local]" in plain


@pytest.mark.parametrize(
    ("words", "start", "found"),
    [
        ([], "lea", {"leaderboard"}),
        (["train"], "s", {"sft", "synth"}),
        (["compare"], "--eff", {"--effect"}),
        (["run", "--mode"], "", {"parity", "strict"}),
        ([], "--repl", {"--replay"}),
        (["--model", "smollm2"], "--repl", {"--replay"}),
    ],
)
def test_the_shell_completes_commands_options_and_choices(
    words: list[str], start: str, found: set[str]
) -> None:
    completer = ShellComplete(cli, {}, "r2w-eval", "_R2W_EVAL_COMPLETE")
    assert {item.value for item in completer.get_completions(words, start)} == found


def test_a_wrong_word_before_a_completion_breaks_nothing() -> None:
    completer = ShellComplete(cli, {}, "r2w-eval", "_R2W_EVAL_COMPLETE")
    found = completer.get_completions(["jugde"], "--mo")
    assert {item.value for item in found} == {"--model", "--model-args", "--mode"}
