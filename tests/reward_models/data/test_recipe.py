"""The data recipe on the real sets: counts, licences, splits, labels, determinism."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from importlib import resources
from pathlib import Path

import pytest
from r2w_eval.reward_models.commands import DataChoice, train
from r2w_eval.reward_models.data.edits import strip_type
from r2w_eval.reward_models.data.flaws import (
    LANGUAGES,
    PLANTERS,
    SOUND_CUT,
    build_flaws,
    build_needless,
    host_of,
)
from r2w_eval.reward_models.data.lamp import CATEGORIES, scaled, untouched_span
from r2w_eval.reward_models.data.recipe import (
    BUILDERS,
    Corpus,
    build_corpus,
    data_card,
    hash_of,
    writing_rows,
)
from r2w_eval.reward_models.data.rows import Row, part_of, read_row
from r2w_eval.reward_models.data.sources import (
    Permission,
    choose_sets,
    classify_licence,
    find_sets,
    reward_data_root,
)
from r2w_eval.reward_models.items import ReflectionItem, WritingItem
from r2w_eval.reward_models.language.levels import level_of, load_yaml, named_categories
from r2w_eval.reward_models.language.phrasing import phrase
from r2w_eval.reward_models.language.words import sentences
from r2w_eval.reward_models.linear.arrays import (
    FORM_FILE,
    HEADS_FILE,
    PROSE_FILE,
    read_arrays,
)

from r2w_eval.errors import DataError, UnknownName, UsageError
from r2w_eval.hashing import dump_line


@pytest.fixture(scope="session")
def corpus(reward_data: Path) -> Corpus:
    return build_corpus(reward_data)


def rows_of(corpus: Corpus, source: str, kind: str | None = None) -> list[Row]:
    return [r for r in corpus.rows if r.source == source and kind in (None, r.kind)]


def test_counts_are_those_of_the_sets(corpus: Corpus) -> None:
    # 1,231 requests, of which two are shorter than a sentence; 764 justified, 295 bare claims
    assert len(rows_of(corpus, "f1000rd_train", "pos")) == 1229
    assert len(rows_of(corpus, "substanreview_train", "pos")) == 764
    assert len(rows_of(corpus, "substanreview_train", "neg_bare")) == 295
    assert len({r.pair_id for r in rows_of(corpus, "wpb_zh_dev")}) == 100
    assert len(rows_of(corpus, "lamp_train", "revised")) == 805


def test_the_shipped_weights_were_fitted_on_these_rows(corpus: Corpus) -> None:
    weights = Path(str(resources.files("r2w_eval.reward_models").joinpath("weights")))
    assert json.loads((weights / "fit.json").read_text())["data_sha256"] == corpus.hash
    assert read_arrays(weights / HEADS_FILE)[1]["data"] == corpus.hash
    # so that other reflections do not make another judge
    texts = hash_of(row for row in writing_rows(corpus.rows) if row.part != "test")
    assert {read_arrays(weights / name)[1]["data"] for name in (PROSE_FILE, FORM_FILE)} == {texts}


def test_ids_are_unique(corpus: Corpus) -> None:
    ids = [row.id for row in corpus.rows]
    assert len(ids) == len(set(ids))


def test_no_group_is_in_two_parts_and_no_text_either(corpus: Corpus) -> None:
    parts = defaultdict(set)
    for row in corpus.rows:
        if row.source in ("lamp_train", "tetra_train") and isinstance(row.item, WritingItem):
            parts[row.item.response].add(row.part)
    assert parts and all(len(seen) == 1 for seen in parts.values())


@pytest.mark.parametrize(
    ("name", "file", "shared"),
    [("disapere_train", "reviews.jsonl", "title"), ("autoj_writing_dev", "pairs.jsonl", "prompt")],
)
def test_what_one_paper_or_prompt_got_stays_in_one_part(
    reward_data: Path, name: str, file: str, shared: str
) -> None:
    data = find_sets(reward_data)[name]
    ids = {r.get("review_id") or r["id"]: r[shared] for r in data.read(file)}
    parts = defaultdict(set)
    for row in BUILDERS[name](data):
        parts[ids[row.id.split(":")[-2]]].add(row.part)
    assert len(ids) > len(set(ids.values())) and len(parts) > 100
    assert all(len(seen) == 1 for seen in parts.values())


def test_no_validation_paragraph_is_trained_on(corpus: Corpus, reward_data: Path) -> None:
    lamp = find_sets(reward_data)["lamp_train"]
    held = {r["paragraph"] for r in lamp.read("edit_traces_val.jsonl")}
    drafts = {r.item.draft for r in corpus.rows if isinstance(r.item, ReflectionItem)}
    assert not held & drafts


def test_restricted_sets_are_absent_by_default_and_named_when_used(reward_data: Path) -> None:
    assert not {
        s for s in choose_sets(reward_data).values() if s.permission is Permission.RESTRICTED
    }
    assert "llmbar_public" not in choose_sets(reward_data, allow_restricted=True)
    chosen = choose_sets(reward_data, allow_restricted=True)
    assert {"disapere_train", "storyer_small"} <= set(chosen)


def test_an_unknown_licence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not known"):
        classify_licence("GPL-3.0", "x")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "SOURCE.json").write_text('{"license": "ask me", "output_files": []}')
    with pytest.raises(UsageError, match="odd"):
        choose_sets(tmp_path)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "a.jsonl").write_text("{}\n")
    source = {"license": "MIT", "output_files": [{"file": "a.jsonl", "sha256": "0" * 64}]}
    (folder / "SOURCE.json").write_text(json.dumps(source))
    with pytest.raises(DataError, match="sha256"):
        find_sets(tmp_path)["small"].read("a.jsonl")
    with pytest.raises(DataError, match="no such file"):
        find_sets(tmp_path)["small"].read("b.jsonl")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"license": 1}', "[" * 100_000])
def test_a_malformed_description_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "SOURCE.json").write_text(content)
    with pytest.raises(DataError, match=r"SOURCE\.json: not a description of a set"):
        find_sets(tmp_path)


def test_a_fit_without_its_writing_sets_is_refused_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    choice = DataChoice(str(tmp_path / "sets"))
    with pytest.raises(UsageError, match="lamp_train, wpb_zh_dev: not among the sets.*--data-only"):
        train(choice, str(tmp_path / "out"), False, None)


def test_names_and_folders_that_do_not_exist(
    reward_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownName, match="lamp_train"):
        choose_sets(reward_data, without=("lamp_trian",))
    monkeypatch.delenv("R2W_REWARD_DATA", raising=False)
    with pytest.raises(DataError, match="R2W_REWARD_DATA"):
        reward_data_root()
    with pytest.raises(DataError, match="no such folder"):
        reward_data_root("/nowhere/at/all")


def test_the_same_seed_gives_the_same_rows(reward_data: Path) -> None:
    first = b"".join(dump_line(r) for r in build_flaws(2))
    assert first == b"".join(dump_line(r) for r in build_flaws(2))
    assert first != b"".join(dump_line(r) for r in build_flaws(2, seed=1))


def test_rows_survive_json(corpus: Corpus) -> None:
    for row in corpus.rows[:: len(corpus.rows) // 50]:
        assert read_row(json.loads(dump_line(row))) == row


def test_a_negative_differs_from_its_positive_in_one_respect(corpus: Corpus) -> None:
    positive = {r.pair_id: r for r in corpus.rows if r.kind == "pos"}
    reflections = {"neg_category", "neg_span", "neg_praise", "neg_generic", "neg_other_draft"}
    for row in rows_of(corpus, "lamp_train"):
        if row.kind in reflections:
            one, other = row.item, positive[row.pair_id].item
            assert isinstance(one, ReflectionItem) and isinstance(other, ReflectionItem)
            assert (one.draft, one.revision) == (other.draft, other.revision)
            assert one.reflection != other.reflection


def test_card_states_licences_and_restricted_sets(corpus: Corpus) -> None:
    card = data_card(corpus)
    assert "| lamp_train | BSD-3-Clause | pos |" in card
    assert "Research-only sets used: none." in card
    assert "Independent reconstruction" in card


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("style / readability - it's smoother", "it's smoother"),
        ("Punctuation / end sentence", "end sentence"),
        ("the flow of this - odd", "the flow of this - odd"),
    ],
)
def test_type_words_at_the_start_are_removed(before: str, after: str) -> None:
    assert strip_type(before) == after


def test_an_untouched_span_overlaps_no_marked_one() -> None:
    draft = "alpha beta gamma delta epsilon zeta eta theta"
    for seed in range(20):
        found = untouched_span(draft, ["beta gamma"], 10, random.Random(seed))
        assert found is not None and found in draft
        assert not set(found.split()) & {"beta", "gamma"}
    assert untouched_span("beta", ["beta"], 4, random.Random(0)) is None


def test_scores_map_to_both_ends() -> None:
    assert (scaled(1), scaled(10), scaled(5.5)) == (-1.0, 1.0, 0.0)


@pytest.mark.parametrize("planter", PLANTERS)
def test_every_planted_flaw_is_in_the_draft_and_not_in_the_revision(planter: object) -> None:
    kinds = {r.meta["category"] for r in build_flaws(30) if r.kind == "pos"}
    assert len(kinds) == len(PLANTERS)
    for row in build_flaws(6):
        item = row.item
        if row.kind == "pos" and isinstance(item, ReflectionItem) and item.revision is not None:
            assert item.draft != item.revision
            if row.meta["category"] in ("cliche", "unsupported"):
                assert row.meta["span"] in item.draft
                assert row.meta["span"] not in item.revision


def test_sound_sentences_are_blamed_and_cut_from_the_text_without_the_flaw() -> None:
    built = [row for row in build_flaws(4) if isinstance(row.item, ReflectionItem)]
    mended = {row.pair_id: row.item for row in built if row.kind == "pos"}
    cuts = [row for row in built if row.kind == SOUND_CUT]
    assert len(cuts) == len(mended) > 50 and {row.lang for row in cuts} == set(LANGUAGES)
    for row in cuts:
        assert row.item.draft == mended[row.pair_id].revision
        victims = set(sentences(row.item.draft)) - set(sentences(row.item.revision or ""))
        assert 1 <= len(victims) <= 3 and max(row.labels.values()) < 0
        assert all(victim in row.item.reflection for victim in victims)


def test_needless_sentences_are_named_rightly_and_add_no_writing() -> None:
    built, trained = list(build_needless(10)), {row.split_group for row in build_flaws(5)}
    assert {row.kind for row in built if row.lang == "zh"} >= {"pos", SOUND_CUT, "neg_span"}
    assert {row.split_group for row in built} == trained
    for row in built:
        assert isinstance(row.item, ReflectionItem)
        if row.kind == "pos":
            assert row.meta["category"] == "needless" and row.meta["span"] in row.item.draft
            assert row.meta["span"] not in (row.item.revision or "")


def test_reserved_phrasings_are_never_trained_on() -> None:
    trained = {phrase("cliche", "x", "en", random.Random(i)) for i in range(300)}
    kept = {phrase("cliche", "x", "en", random.Random(i), reserved=True) for i in range(300)}
    assert not trained & kept


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_phrasings_name_their_category(lang: str) -> None:
    for category in load_yaml("phrases.yaml")[lang]["categories"]:
        hits = sum(
            category in named_categories(phrase(category, "", lang, random.Random(i)))
            for i in range(40)
        )
        assert hits >= 10, category


def test_every_category_of_the_sets_has_a_level() -> None:
    assert set(CATEGORIES.values()) <= set(level_of())


def test_short_texts_are_no_hosts() -> None:
    assert host_of("p", "One. Two.", "en") is None
    host = host_of("p", "One is here. Two is here. Three is here. Four is here.", "en")
    assert host is not None and len(host.sentences) == 4


def test_parts_have_their_shares() -> None:
    parts = [part_of(f"group {i}") for i in range(4000)]
    assert 0.56 < parts.count("train") / 4000 < 0.64
    assert 0.17 < parts.count("calibrate") / 4000 < 0.23
