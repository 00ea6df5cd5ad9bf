"""Which samples a run takes, and that it names those it does not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from r2w_eval.errors import DataError, UnknownName, UsageError
from r2w_eval.records.recorded import open_recorded
from r2w_eval.records.selection import (
    NAMED,
    Selection,
    check_complete,
    check_ids,
    describe_left_out,
    describe_recorded,
    describe_strays,
    name_some,
    read_ids,
    shuffle,
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
    assert [s.id for s in Selection(answered_by=recorded).take(SAMPLES)] == ["1", "3"]
    assert describe_recorded(SAMPLES, recorded) == [
        "--responses has no answer for 2 of 4 samples: 2, 4"
    ]
    assert describe_strays(SAMPLES, recorded) == ["--responses has 1 answers to no sample: 9"]
    assert not describe_recorded(SAMPLES[:1], recorded)


def test_long_lists_are_cut_with_a_count() -> None:
    names = [str(n) for n in range(NAMED + 3)]
    assert name_some(names).endswith(f"{NAMED - 1} and 3 more")


def test_named_samples_keep_the_order_of_the_file_and_come_before_the_limit() -> None:
    chosen = Selection(ids=("4", "t:3", "1"))
    assert [s.id for s in chosen.take(SAMPLES)] == ["1", "3", "4"]
    assert [s.id for s in Selection(ids=("4", "other:1")).take(SAMPLES)] == ["4"]
    assert [s.id for s in Selection(ids=("4", "3"), limit=1).take(SAMPLES)] == ["3"]
    check_complete("race", chosen.take(SAMPLES))


def test_an_unknown_id_is_reported_with_similar_ones_and_how_to_list_them() -> None:
    suites = {"a": [str(n) for n in range(500)], "b": ["x-1"]}
    check_ids(["7", "a:8", "b:x-1"], suites)
    with pytest.raises(UnknownName, match=r"'1200'.*of a, b.*mean .*120.* more\. .*list --ids a"):
        check_ids(["1200", "x-1"], suites)
    with pytest.raises(UnknownName, match=r"'x-2': no such sample of b\. Did you mean x-1\?"):
        check_ids(["b:x-2", "1"], suites)
    with pytest.raises(UsageError, match="none of them is a sample of b"):
        check_ids(["a:8"], suites)


def test_ids_are_read_from_lists_and_from_the_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ids.tsv"
    path.write_bytes("\ufeffa, b\tzh\tpoem\r\n\n 7 \nc\u2028d\n".encode())
    assert read_ids(["1,2 ", f"@{path}", "2,9"]) == ("1", "2", "a, b", "7", "c\u2028d", "9")
    assert read_ids([]) == ()
    for given_ids, told in (([","], "no id"), ([f"@{tmp_path}/none"], "none"), (["@"], "--ids")):
        with pytest.raises(UsageError, match=told):
            read_ids(given_ids)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        read_ids([f"@{path}"])


KINDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=40)


@given(kinds=KINDS, seed=st.integers(0, 9), mixed=st.randoms())
@example(kinds=[*"aaaaaaabbbbbbb"], seed=8, mixed=Random(0))
def test_every_beginning_of_a_shuffle_holds_each_stratum_in_proportion(
    kinds: list[str], seed: int, mixed: Random
) -> None:
    samples = [
        Sample("t", str(n), (Message("user", "Write."),), meta={"kind": kind})
        for n, kind in enumerate(kinds)
    ]
    order = shuffle(samples, seed, "kind")
    assert sorted(order, key=int) == [s.id for s in samples]
    for end in range(len(order) + 1):
        taken = Counter(kinds[int(name)] for name in order[:end])
        for kind, n in Counter(kinds).items():
            assert abs(taken[kind] - end * n / len(kinds)) < 2
    mixed.shuffle(samples)
    assert shuffle(samples, seed, "kind") == order
    drawn = Selection(limit=5).drawn(samples, seed, "kind")
    assert {s.id for s in drawn.take(samples)} == set(order[:5])


def test_every_sample_is_drawn_equally_often() -> None:
    samples = [
        Sample("t", str(n), (Message("user", "Write."),), meta={"kind": n > 1}) for n in range(6)
    ]
    counts = Counter(name for seed in range(3000) for name in shuffle(samples, seed, "kind")[:2])
    assert all(abs(counts[s.id] - 1000) < 150 for s in samples)


def test_a_draw_from_nothing_takes_nothing() -> None:
    assert not list(Selection(limit=3).drawn([], 0, "").take(SAMPLES))
