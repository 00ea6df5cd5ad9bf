"""Settings: where they come from, which wins, and what each refuses."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.config import RunConfig, merge_config, override_decoding
from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.types import Decoding


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return str(path)


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "model: a\nmax-connections: 3\nscore_mode: expected\njudge: [x, y]\n")
    config = merge_config(file, {"model": "b", "limit": 2})
    assert (config.model, config.limit, config.max_connections) == ("b", 2, 3)
    assert config.judge == ("x", "y") and config.score_mode == "expected"
    assert config.timeout == RunConfig().timeout


def test_one_judge_may_be_written_without_brackets(tmp_path: Path) -> None:
    assert merge_config(written(tmp_path, "judge: local\n"), {}).judge == ("local",)


@pytest.mark.parametrize(
    "line",
    [
        "mode: nonsense", "limit: many", "limit: 0", "limit: -3", "limit: 2.5", "samples: 0",
        "timeout: fast", "timeout: -1", "timeout: .nan", "timeout: .inf", "max_cost: -1",
        "min_coverage: .nan", "judge: 5", "judge: [1, 2]", "gen-kwargs: {temperature: 0}",
        "model: 5", "cache: 1", "cache: 'no'", "seed: true", "score-mode: [text]", "tasks: [a, b]",
        "model: null", "out: 7", "timeout: 0", "min_coverage: 5", "max_unscored: 1.01",
        "judge: ''", "judge: ','", "judge: []",
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_named_with_its_flag(tmp_path: Path, line: str) -> None:
    flag = "--" + line.partition(":")[0].replace("_", "-")
    with pytest.raises(UsageError, match=flag):
        merge_config(written(tmp_path, line + "\n"), {})


@pytest.mark.parametrize("flags", [{"timeout": float("nan")}, {"max_cost": float("nan")}])
def test_a_cap_that_could_never_be_reached_is_refused(flags: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        merge_config(None, flags)


def test_every_default_passes_its_own_check() -> None:
    defaults = {f.name: f.default for f in fields(RunConfig)}
    assert merge_config(None, defaults) == RunConfig()


@pytest.mark.parametrize("text", ["", "- a\n", "model: [\n", "5\n", "\x00"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"run\.yaml"):
        merge_config(written(tmp_path, text), {})


def test_an_unknown_setting_has_neighbours(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean max_connections"):
        merge_config(written(tmp_path, "max-conections: 3\n"), {})


def test_tasks_are_listed_once_in_order() -> None:
    assert RunConfig(tasks=" b, a,,b ").task_names == ("b", "a")


BASE = Decoding(max_tokens=10, temperature=1.0, top_k=20, stop=("END",))


def test_overrides_change_only_what_they_name() -> None:
    changed = override_decoding(BASE, "temperature=0, max_gen_toks=5", "top_k,stop", "--gen-kwargs")
    assert changed.sent() == {"max_tokens": 5, "temperature": 0.0}
    assert override_decoding(BASE, "", "", "--gen-kwargs") == BASE
    assert override_decoding(BASE, "", "seed", "--gen-kwargs") == BASE


@pytest.mark.parametrize(
    "text",
    ["heat=1", "temperature", "temperature=", "temperature=nan", "temperature=inf",
     "max_tokens=2.5", "max_tokens=0", "top_p=1=1", "__class__=1"],
)  # fmt: skip
def test_an_unusable_override_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--gen-kwargs"):
        override_decoding(BASE, text, "", "--gen-kwargs")


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_text_breaks_the_reader_of_overrides(text: str, omit: str) -> None:
    try:
        override_decoding(BASE, text, omit, "--gen-kwargs")
    except UsageError as error:
        assert error.exit_code == 2
