"""Names that become path segments, and where the folders lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.paths import cache_dir, cache_path, folder_name, safe_name, tasks_dir


@given(st.text(max_size=200) | st.text(alphabet="./\\\0:con~-_ ", max_size=100))
def test_any_name_becomes_one_harmless_segment(text: str) -> None:
    name = safe_name(text)
    root = Path("/runs")
    assert (root / name).resolve().parent == root
    assert name.isascii() and len(name) <= 85 and safe_name(name) == name


@pytest.mark.parametrize("text", ["..", "/", "", "...", "模型", "\x00", "-", "~"])
def test_names_without_a_usable_character_have_a_stand_in(text: str) -> None:
    assert safe_name(text) == "unnamed"


@pytest.mark.parametrize("text", ["CON", "nul.txt", "com1", "lpt9.log"])
def test_reserved_names_are_changed(text: str) -> None:
    assert safe_name(text) == f"name-{text}"


@given(st.text(max_size=200))
def test_a_folder_keeps_its_hash_however_long_its_name_is(text: str) -> None:
    name = folder_name(text, "0123abcd")
    assert name.endswith("-0123abcd") and len(name) <= 85 and safe_name(name, 90) == name


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_CACHE", "/a")
    assert cache_dir() == Path("/a") and cache_path().parent == Path("/a")
    monkeypatch.delenv("R2W_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_dir() == Path("/b/r2w-eval")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/u")
    assert cache_dir() == Path("/home/u/.cache/r2w-eval")


def test_the_task_folder_holds_a_suite() -> None:
    assert (tasks_dir() / "quickstart" / "quickstart.yaml").is_file()
