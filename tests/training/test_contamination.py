"""Benchmark prompts are kept out of training: edited, shortened or reworded ones too."""

from __future__ import annotations

import json
import random
import unicodedata
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.training.contamination import (
    MAX_JACCARD,
    MAX_RUN_TOKENS,
    MAX_SHARE,
    MIN_WHOLE,
    SHORT_TOKENS,
    BenchmarkIndex,
    N,
    benchmark_texts,
    tokenise,
)
from r2w_eval.training.prompts import read_prompts, starter_prompts

from r2w_eval.errors import DataError, UsageError

LONG = (
    "Please write a detailed letter to the town council in which you explain why the old bridge "
    "over the mill stream should be kept open to carts, naming at least three people who use it "
    "every week and the cost of the alternative route through the upper village."
)
INDEX = BenchmarkIndex([LONG, "What is the history of salt?", "写一首关于雨的诗"])


def without_some(text: str, share: float, seed: int) -> str:
    chance = random.Random(seed)
    return " ".join(token for token in tokenise(text) if chance.random() > share)


def test_the_prompt_itself_is_refused_with_the_reason() -> None:
    hit = INDEX.check(LONG.upper())
    assert hit is not None and hit.share == 1.0 and "100% of its 13-grams" in str(hit)


def test_a_prompt_inside_a_longer_one_is_refused() -> None:
    assert INDEX.check(f"You are a clerk. {LONG} " + "Then add something of your own. " * 40)


@pytest.mark.parametrize(
    "text",
    [
        LONG.translate({n: n + 0xFEE0 for n in range(0x21, 0x7F)}),
        LONG.replace("e", "e\u200b"),
        LONG.replace("t", "t\u00ad"),
        LONG.replace(" ", "\u00a0\u2009"),
        unicodedata.normalize("NFD", LONG.replace("e", "é")),
    ],
)
def test_the_same_prompt_in_another_form_of_unicode_is_refused(text: str) -> None:
    hit = BenchmarkIndex([LONG, LONG.replace("e", "é")]).check(text)
    assert hit is not None and hit.share == 1.0


QUERY = "which plants grow well in the shade of old walnut trees"


@pytest.mark.parametrize("query", [QUERY, "介绍泉州开元寺东西塔"])
def test_a_short_prompt_among_instructions_is_refused(query: str) -> None:
    index = BenchmarkIndex([query])
    around = (
        "You are a careful gardener. Write a report of two pages on this question: {}? Name ten"
    )
    hit = index.check(around.format(query) + " sources and end with a table.")
    assert hit is not None and hit.share < MAX_SHARE and hit.like
    # all but the last word is another question
    assert index.check(around.format(query[:-5])) is None


def test_another_prompt_passes_even_with_a_stock_phrase() -> None:
    own = "I need a letter in which you explain why the old mill should close. " * 3
    assert INDEX.check(own) is None


@pytest.mark.parametrize(
    "text", ["what is the history of salt", "The history of salt: what is it", "写一首关于雨的诗。"]
)
def test_short_prompts_are_refused_reworded_too(text: str) -> None:
    assert INDEX.check(text)


def test_a_short_prompt_of_other_words_passes() -> None:
    assert INDEX.check("What is the history of pepper and trade?") is None


def test_an_empty_index_refuses_nothing() -> None:
    assert BenchmarkIndex([]).check(LONG) is None


WORDS = st.lists(st.sampled_from("abcd"), max_size=120).map(" ".join)


def by_definition(texts: list[str], probe: str) -> tuple[float, int, str] | None:
    """What the index says in a moment, by comparing all grams and all sets of words."""

    def grams(text: str) -> list[tuple[str, ...]]:
        tokens = tokenise(text)
        return [tuple(tokens[k : k + N]) for k in range(len(tokens) - N + 1)]

    held = {gram for text in texts for gram in grams(text)}
    flags = [gram in held for gram in grams(probe)]
    share = sum(flags) / len(flags) if flags else 0.0
    run = max((len(list(own)) + N - 1 for known, own in groupby(flags) if known), default=0)
    if share > MAX_SHARE or run >= MAX_RUN_TOKENS:
        return share, run, ""
    if (n := len(tokenise(probe))) == 0 or n >= SHORT_TOKENS:
        return None
    words, like = set(tokenise(probe)), []
    for text in (text for text in texts if 0 < len(tokenise(text)) < SHORT_TOKENS):
        other = set(tokenise(text))
        if words == other:
            return share, run, text
        if len(words & other) >= MAX_JACCARD * len(words | other):
            like.append(text)
    held_whole = [
        " ".join(own)
        for place in range(n)
        for own in map(tokenise, dict.fromkeys(texts))
        if MIN_WHOLE <= len(own) < SHORT_TOKENS and tokenise(probe)[place : place + len(own)] == own
    ]
    return (share, run, (like or held_whole)[0]) if like or held_whole else None


@given(st.lists(WORDS, max_size=5), WORDS, st.integers(0, 60), st.text("abcdefgh ", max_size=30))
def test_the_index_says_what_a_comparison_with_every_text_says(
    texts: list[str], probe: str, cut: int, more: str
) -> None:
    probe = f"{(texts or [probe])[0][cut:]} {more} {probe[:cut]}"
    hit = BenchmarkIndex(texts).check(probe)
    found = None if hit is None else (hit.share, hit.run, hit.like)
    assert found == by_definition(texts, probe)


def test_edited_benchmark_queries_are_caught_and_the_starter_prompts_pass(
    with_data: Path,
) -> None:
    queries = with_data / "writingbench" / "benchmark_all.jsonl"
    texts = [json.loads(line)["query"] for line in queries.read_text("utf-8").split("\n") if line]
    index = BenchmarkIndex(texts)
    hits = [index.check(without_some(text, 0.03, i)) for i, text in enumerate(texts[:200])]
    assert all(hits)
    assert not any(index.check(prompt.prompt) for prompt in starter_prompts(432))


def test_prompts_of_suites_that_need_the_users_files_are_included(benchmarks: Path) -> None:
    questions = benchmarks / "arena_hard_v2_creative" / "question_creative_writing.jsonl"
    lines = [line for line in questions.read_text("utf-8").split("\n") if line]
    found = benchmark_texts(str(benchmarks))
    assert not {"arena_hard_creative", "deepresearch_bench"} & set(found.unchecked)
    assert {json.loads(line)["prompt"] for line in lines} <= set(found.texts)


def test_suites_without_data_are_named(tmp_path: Path, own_cache: Path) -> None:
    found = benchmark_texts(str(tmp_path))
    assert "writingbench" in found.unchecked and "quickstart" not in found.unchecked


@pytest.mark.parametrize("name", ["writingbench", "creative"])
def test_nothing_is_trained_without_a_comparison_with_what_is_evaluated(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="is not here"):
        benchmark_texts(str(tmp_path), [name])


def test_starter_prompts_are_many_even_and_the_same_everywhere() -> None:
    prompts = starter_prompts(432)
    assert len({prompt.prompt for prompt in prompts}) == 432
    counts = {(p.lang, p.domain): 0 for p in prompts}
    for prompt in prompts:
        counts[prompt.lang, prompt.domain] += 1
    assert len(counts) == 12 and set(counts.values()) == {36}
    assert starter_prompts(50) == prompts[:50] != starter_prompts(50, seed=1)
    english = starter_prompts(216, languages=["en"])
    assert english == [prompt for prompt in prompts if prompt.lang == "en"]
    with pytest.raises(UsageError, match="the grammar has 432"):
        starter_prompts(433)
    for none in (0, -1):
        with pytest.raises(UsageError, match="expected 1 or more"):
            starter_prompts(none)


@pytest.mark.parametrize(
    "line, message",
    [
        ("[1]", "is not an object"),
        ('{"id": "1", "lang": "en", "domain": "x"}', "prompt is 'None'"),
        (
            '{"id": "1", "lang": "en", "domain": "x", "prompt": "p", "rubric": [{"nom": 1}]}',
            "rubric",
        ),
        *(
            (
                '{"id": "1", "lang": "en", "domain": "x", "prompt": "p", "rubric": '
                f'[{{"name": {name}, "description": "d", "weight": {weight}}}]}}',
                message,
            )
            for name, weight, message in [
                ('"a"', '"3"', "weight '3': expected a number above 0"),
                ('"a"', "0", "weight 0"),
                ('"a"', "-1", "weight -1"),
                ('"a"', "NaN", "weight nan"),
                ('"a"', "true", "weight True"),
                ('"a"', "1e300", r"weight 1e\+300"),
                ('"a", "name": " "', "1", "without a name"),
                ("3", "1", "expected text"),
                ('"a", "description": "d"}, {"name": "a"', "1", "twice"),
            ]
        ),
        ("{", "not JSON"),
    ],
)
def test_a_broken_prompt_file_names_the_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    good = '{"id": "0", "lang": "en", "domain": "x", "prompt": "Write \u2028 this."}'
    path.write_text(f"{good}\n{line}\n", "utf-8")
    with pytest.raises(Exception, match=message) as caught:
        read_prompts(path)
    assert "line 2" in str(caught.value)


def test_empty_missing_and_doubled_prompts_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    with pytest.raises(UsageError, match="no such file"):
        read_prompts(path)
    path.write_text("")
    with pytest.raises(UsageError, match="empty"):
        read_prompts(path)
    path.write_text('{"id": "0", "lang": "en", "domain": "x", "prompt": "p"}\n' * 2)
    with pytest.raises(UsageError, match="occurs twice"):
        read_prompts(path)
