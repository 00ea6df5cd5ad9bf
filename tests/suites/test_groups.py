"""Groups stand for their members; a member that needs a file is told, not dropped in silence."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from r2w_eval.config import RunConfig
from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.paths import tasks_dir
from r2w_eval.run.planning import plan_tasks
from r2w_eval.suites.groups import expand_groups, group_members
from r2w_eval.suites.suite import load_info, suite_folders


def folder(root: Path, **groups: str) -> Path:
    for name in ("one", "two"):
        (root / name).mkdir()
        text = (tasks_dir() / "quickstart/quickstart.yaml").read_text("utf-8")
        if name == "two":
            text += "  inputs: [baseline]\n  required_inputs: [baseline]\n"
        (root / name / f"{name}.yaml").write_text(text)
        shutil.copy(tasks_dir() / "quickstart/utils.py", root / name)
    for name, members in groups.items():
        (root / f"{name}.yaml").write_text(f"group: {name}\ntask: [{members}]\n")
    return root


def test_a_group_stands_for_its_members_once(tmp_path: Path) -> None:
    root = folder(tmp_path, all="both, one", both="one, two")
    assert expand_groups(["one", "all"], ["baseline"], root) == (["one", "two"], [])


def test_a_member_without_its_file_is_left_out_and_reported(tmp_path: Path) -> None:
    root = folder(tmp_path, both="one, two", only="two")
    suites, notes = expand_groups(["both"], [], root)
    assert suites == ["one"]
    assert notes == ["two of the group both is left out: it needs --baseline FILE"]
    assert expand_groups(["two"], [], root)[0] == ["two"], "named by itself it is tried"
    with pytest.raises(UsageError, match="two of the group only is left out"):
        expand_groups(["only"], [], root)


def test_broken_groups_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path, loop="ring", ring="loop")
    with pytest.raises(UsageError, match="loop contains itself: loop -> ring -> loop"):
        expand_groups(["loop"], [], root)
    with pytest.raises(UnknownName, match="Did you mean loop"):
        expand_groups(["lop"], [], root)
    (root / "bad.yaml").write_text("group: bad\n")
    with pytest.raises(UsageError, match=r"bad\.yaml: broken group file"):
        group_members(root)


def test_every_member_of_our_groups_exists() -> None:
    groups = group_members()
    assert {"creative", "deep_research", "writing"} <= groups.keys()
    known = suite_folders().keys() | groups.keys()
    assert not groups.keys() & suite_folders().keys()
    for members in groups.values():
        assert set(members) <= known
    suites, notes = expand_groups(["writing"], ["references", "baseline", "pages"])
    assert len(suites) >= 10 and not notes
    for name in suites:
        assert set(load_info(name).required_inputs) <= set(load_info(name).inputs)


def test_a_run_of_a_group_says_what_it_leaves_out(benchmarks: Path) -> None:
    plans = plan_tasks(RunConfig(model="m", tasks="creative", data_dir=str(benchmarks)))
    assert [plan.info.name for plan in plans] == ["eqbench_creative_v3", "eqbench_longform"]
    assert all("arena_hard_creative" in plan.notes[-1] for plan in plans)


def test_a_member_that_reads_the_web_is_left_out_without_pages(benchmarks: Path) -> None:
    config = RunConfig(model="m", tasks="deep_research", data_dir=str(benchmarks))
    plans = plan_tasks(config)
    assert [plan.info.name for plan in plans] == ["deepresearch_gym", "deepresearch_bench_ii"]
    fact = "deepresearch_bench_fact of the group deep_research is left out: it needs --pages live"
    assert fact in plans[0].notes
    with_pages = plan_tasks(replace(config, pages="live"))
    assert "deepresearch_bench_fact" in [plan.info.name for plan in with_pages]


def test_lm_eval_reads_the_same_groups() -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False)
    assert {"creative", "deep_research", "writing"} <= set(manager.all_groups)
