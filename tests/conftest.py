"""Fixtures of all tests: data folders, a private cache, a fake server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support import FOLDERS, data_folder

from r2w_eval.fakeserver.server import FakeServer

# tests use loopback only; without this, lm-eval waits for the model hub
os.environ["HF_HUB_OFFLINE"] = "1"
# a busy machine must not fail a test
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


def _existing(variable: str, default: str) -> Path:
    folder = data_folder(variable, default)
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: set {variable} to run this")
    return folder


@pytest.fixture(scope="session")
def benchmarks() -> Path:
    """Real benchmark data (`R2W_DATA`)."""
    return _existing("R2W_DATA", "benchmarks")


@pytest.fixture(scope="session")
def verification() -> Path:
    """Raw judge texts and published numbers (`R2W_VERIFICATION`)."""
    return _existing("R2W_VERIFICATION", "verification")


@pytest.fixture(scope="session")
def reward_data() -> Path:
    """Labelled sets (`R2W_REWARD_DATA`)."""
    return _existing("R2W_REWARD_DATA", "reward_data")


@pytest.fixture(autouse=True, scope="session")
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests see neither the user's data folders nor the user's cache: what needs data says so."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            patch.delenv(name, raising=False)
        patch.setenv("R2W_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def with_data(benchmarks: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Real benchmark data where a run looks for it."""
    monkeypatch.setenv("R2W_DATA", str(benchmarks))
    return benchmarks


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp's threads spin-wait on a busy machine; one is enough for tests."""
    monkeypatch.setenv("R2W_THREADS", "1")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reply cache for this test."""
    monkeypatch.setenv("R2W_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server for this test."""
    with FakeServer() as running:
        yield running
