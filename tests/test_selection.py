"""Which samples a run takes, and that it names those it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r2w_eval.errors import DataError
from r2w_eval.recorded import open_recorded
from r2w_eval.selection import (
    NAMED,
    Selection,
    check_complete,
    describe_left_out,
    describe_recorded,
    describe_strays,
    name_some,
)
from r2w_eval.types import Message, Sample


def sample(name: str, lacks: str = "") -> Sample:
    return Sample("t", name, (Message("user", f"Write {name}."),), lacks=lacks)


SAMPLES = [sample("1"), sample("2", "references"), sample("3"), sample("4")]


def test_incomplete_samples_stop_the_run_or_are_left_out_by_name() -> None:
    with pytest.raises(DataError, match=r"--references has nothing for 1 samples: 2.*--only-compl"):
        check_complete("race", Selection().take(SAMPLES))
    taken = list(Selection(only_complete=True, limit=2).take(SAMPLES))
    assert [s.id for s in taken] == ["1", "3"]
    check_complete("race", taken)
    assert describe_left_out(SAMPLES) == ["1 samples left out that --references has nothing for: 2"]
    assert describe_left_out(taken) == []


def test_the_limit_decides_which_samples_must_be_complete() -> None:
    check_complete("race", Selection(limit=1).take(SAMPLES))


def test_missing_answers_and_answers_to_nothing_are_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"id": n, "text": "x"}) + "\n" for n in ("1", "3", "9")))
    recorded = open_recorded(path, "m", 1)
    assert [s.id for s in Selection(recorded).take(SAMPLES)] == ["1", "3"]
    assert describe_recorded(SAMPLES, recorded) == [
        "--responses has no answer for 2 of 4 samples: 2, 4"
    ]
    assert describe_strays(SAMPLES, recorded) == ["--responses has 1 answers to no sample: 9"]
    assert not describe_recorded(SAMPLES[:1], recorded)


def test_long_lists_are_cut_with_a_count() -> None:
    names = [str(n) for n in range(NAMED + 3)]
    assert name_some(names).endswith(f"{NAMED - 1} and 3 more")
