"""The stable names exist, are documented, and the exit codes are those of the documentation."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
import yaml
from support import ROOT

from r2w_eval import errors
from r2w_eval.cli import EXIT_INTERRUPTED
from r2w_eval.types import JudgeStatus, WriterStatus

PUBLIC = yaml.safe_load((ROOT / "docs" / "api.yaml").read_text("utf-8"))


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_exist_and_say_what_they_are(module: str) -> None:
    if module.endswith(".grpo"):
        pytest.importorskip("trl", reason="needs the train extra: pip install 'r2w-eval[train]'")
    loaded = importlib.import_module(module)
    for name in PUBLIC[module]:
        assert inspect.getdoc(getattr(loaded, name)), f"{module}.{name}"


def test_exit_codes_are_as_documented() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.R2WError)
    ]
    assert told == {0, EXIT_INTERRUPTED, *(value.exit_code for value in classes)}
    for value in classes:
        row = next(line for line in page.splitlines() if line.startswith(f"| {value.exit_code} |"))
        assert f"`{value.__name__}`" in row


def test_every_variable_in_the_code_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    folders = ("r2w_eval", "tasks", "reward_models", "leaderboards", "training")
    read = {
        name
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"environ[^\n]*?\"(R2W_[A-Z0-9_]+)\"", path.read_text("utf-8"))
    }
    assert len(read) > 8
    assert not {name for name in read if f"`{name}`" not in page}


def test_the_statuses_of_the_documentation_exist() -> None:
    page = (ROOT / "docs" / "concepts.md").read_text("utf-8")
    for who, statuses in (("writer", WriterStatus), ("judge", JudgeStatus)):
        row = next(line for line in page.splitlines() if line.startswith(f"| {who} | `"))
        told = set(re.findall(r"`(\w+)`", row))
        assert told and told <= {str(status) for status in statuses}
