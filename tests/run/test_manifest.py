"""The manifest: which code a score stands on."""

from __future__ import annotations

from pathlib import Path

from r2w_eval.hashing import file_hash
from r2w_eval.run.manifest import code_hash, imported_suites
from r2w_eval.suites.suite import suite_folders


def test_a_change_of_a_shared_module_changes_the_code_of_all_who_load_it(tmp_path: Path) -> None:
    texts = {
        "base/race.py": "N = 1\n",
        "middle/utils.py": "from r2w_eval.tasks.base.race import N\n",
        "top/utils.py": "def late():\n    from r2w_eval.tasks.middle import utils\n",
        "alone/utils.py": "import json\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    before = {name: code_hash(tmp_path / name) for name in ("base", "middle", "top", "alone")}
    (tmp_path / "base/race.py").write_text("N = 2\n")
    after = {name: code_hash(tmp_path / name) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["base", "middle", "top"]
    assert after["alone"] == file_hash(tmp_path / "alone/utils.py")[:12]
    (tmp_path / "alone/parity.py").write_text("from r2w_eval.tasks.base import race\n")
    assert code_hash(tmp_path / "alone") == after["alone"]


def test_the_variants_follow_the_suite_that_they_vary() -> None:
    folders = suite_folders()
    for name, base in {
        "deepresearch_bench_static": "deepresearch_bench",
        "discox_detailed": "discox",
        "hellobench_layout": "hellobench",
        "hellobench_length": "hellobench",
        "hellobench_opencompass": "hellobench",
        "longbench_write_ruler": "longbench_write",
    }.items():
        assert base in imported_suites(folders[name])
