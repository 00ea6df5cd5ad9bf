"""Mutation testing of the formulas: `python -m benchmarks.reliability.mutation [--targets stats]`.

A mutant is one function with one change: another operator, comparison or constant, a condition
negated, a returned value lost. pytest collects a target's tests once; each mutant is a fork that
replaces the function's code and runs the tests that reach the changed statement, quickest first, up
to the first that fails. Which tests these are is found by running all of them once under coverage.
(mutmut and cosmic-ray start an interpreter a mutant, and do not know packages whose folders have
other names than they.)

Killed: a test fails. Slow: ten times the usual processor time, so most likely no end. Survived: all
pass. `equivalent.yaml` names survivors that compute the same, and why.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reliability.mutants import Mutant, install, mutants_of
from benchmarks.reliability.page import FOLDER, write_page
from benchmarks.reliability.process import ROOT
from r2w_eval.store import write_json

RESULTS = FOLDER / "mutation.json"
SEED = 0
SLOWEST_S = 5
STATS = "stats/test_stats test_estimates"
SUMMARY = "results/test_summary results/test_ensembles results/test_report run/test_turns"
# target: its module, and where its tests are; the module's own examples are tests too
TARGETS: dict[str, tuple[str, str]] = {
    "stats.inference": ("stats.inference", STATS),
    "stats.resampling": ("stats.resampling", "stats/test_resampling"),
    "stats.agreement": ("stats.agreement", "stats/test_agreement"),
    "stats.noise": ("stats.noise", "stats/test_noise"),
    "stats.ratings": ("stats.ratings", "stats/test_ratings"),
    "stats.orders": ("stats.orders", "stats/test_orders"),
    "stats.length_slope": ("stats.length_slope", "stats/test_agreement"),
    "estimates": ("estimates", "test_estimates"),
    "advantages": ("training.rl.advantages", "training/rl/test_advantages"),
    "outcomes": ("training.rl.outcomes", "training/rl/test_outcomes"),
    "losses": (
        "reward_models.transformer.losses", "reward_models/transformer/test_losses",
    ),
    "reward outcome": ("reward_models.linear.outcome", "reward_models/linear/test_outcome"),
    "summary": ("results.summary", SUMMARY),
    "counts": ("results.counts", f"results/test_counts {SUMMARY}"),
    "ensembles": ("results.ensembles", SUMMARY),
    "verdict_means": ("results.verdict_means", "records/test_parquet"),
    "writingbench": ("tasks.writingbench.utils", "tasks/test_writingbench"),
    "eqbench_creative_v3": (
        "tasks.eqbench_creative_v3.scoring", "tasks/test_eqbench_creative_v3",
    ),
    "eqbench_longform": ("tasks.eqbench_longform.scoring", "tasks/test_eqbench_longform"),
    "deepresearch_bench": ("tasks.deepresearch_bench.scoring", "tasks/test_deepresearch_bench"),
    "deepresearch_bench_ii": (
        "tasks.deepresearch_bench_ii.scoring", "tasks/test_deepresearch_bench_ii",
    ),
    "deepresearch_bench_fact": (
        "tasks.deepresearch_bench_fact.utils", "tasks/test_deepresearch_bench_fact",
    ),
    "deepresearch_gym": (
        "tasks.deepresearch_gym.scoring",
        "tasks/test_deepresearch_gym tasks/test_deepresearch_gym_citations",
    ),
    "discox": ("tasks.discox.points", "tasks/test_discox"),
    "reportbench": ("tasks.reportbench.scoring", "tasks/test_reportbench"),
    "hellobench": ("tasks.hellobench.utils", "tasks/test_hellobench"),
    "longbench_write": ("tasks.longbench_write.utils", "tasks/test_longbench_write"),
    "arena_hard_creative": ("tasks.arena_hard_creative.utils", "tasks/test_arena_hard_creative"),
}  # fmt: skip
PASSED, FAILED, NOT_MADE = 0, 1, 71


@dataclass(frozen=True)
class Reach:
    """One test: its processor seconds, and the lines of the module that it runs."""

    cpu_s: float
    lines: frozenset[int]


@dataclass
class Target:
    """The work of a session, and its outcome."""

    name: str
    path: str
    most: int
    told: Callable[[str], None]
    before: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    trouble: str = ""


class Examiner:
    """A pytest plugin that runs mutants where the session would run its tests."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def pytest_collection(self) -> None:
        """A counterexample kills, small or not; and every run of the tests draws the same."""
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile(
            "mutants", phases=phases, database=None, deadline=None, derandomize=True
        )
        settings.load_profile("mutants")

    def pytest_internalerror(self, excinfo: Any) -> None:
        """Print nothing: the parent reports what ended the session."""
        self._target.trouble = f": {excinfo.value}"

    def pytest_runtestloop(self, session: Any) -> bool:
        """All tests once, unchanged; then each mutant before those that reach it."""
        target = self._target
        # in a fork, which leaves no warm cache behind for mutants
        measured = in_child(lambda: measure(session, target.path))
        reached = {test: Reach(cpu, frozenset(lines)) for test, (cpu, lines) in measured.items()}
        mutants = list(mutants_of(Path(target.path).read_text("utf-8")))
        if target.before:
            target.result = self._again(session, mutants, reached, target.before)
            return True
        random.Random(SEED).shuffle(mutants)
        chosen = sorted(mutants[: target.most], key=lambda m: m.line)
        rows = [self._row(session, mutant, reached) for mutant in chosen]
        target.result = {
            "target": target.name, "module": os.path.relpath(target.path, ROOT),
            "tests": len(reached), "of": len(mutants), "run": len(rows), "seed": SEED,
            "fates": dict(Counter(row["fate"] for row in rows)),
            "left": [row for row in rows if row["fate"] not in ("killed", "slow")],
        }  # fmt: skip
        return True

    def _again(
        self, session: Any, mutants: list[Mutant], reached: dict[str, Reach], old: dict[str, Any]
    ) -> dict[str, Any]:
        """The last result, with the fate that its survivors have now."""
        places = {_place(row) for row in old["left"]}
        chosen = [mutant for mutant in mutants if _place(vars(mutant)) in places]
        if {_place(vars(mutant)) for mutant in chosen} != places:
            raise RuntimeError(f"{old['target']} has changed: run all of its mutants")
        rows = [self._row(session, mutant, reached) for mutant in chosen]
        left = [row for row in rows if row["fate"] not in ("killed", "slow")]
        slow = old["fates"].get("slow", 0)
        killed = old["run"] - slow - len(left)
        fates = {"killed": killed, "slow": slow, **Counter(row["fate"] for row in left)}
        return {**old, "tests": len(reached), "fates": fates, "left": left}

    def _row(self, session: Any, mutant: Mutant, reached: dict[str, Reach]) -> dict[str, Any]:
        fate = fate_of(session, mutant, self._target.path, reached)
        told = {name: getattr(mutant, name) for name in ("function", "code", "before", "after")}
        if fate not in ("killed", "slow"):
            self._target.told(f"{fate:11} {self._target.name}:{mutant.line} {told}")
        return {**told, "fate": fate}


def _place(facts: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(facts[name] for name in ("function", "code", "before", "after"))


def run_item(item: Any, following: Any = None) -> None:
    """One collected test, with its fixtures."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def measure(session: Any, path: str) -> dict[str, Any]:
    """Seconds and lines of each test that passes; raises where one fails before any change."""
    from coverage import Coverage

    looking = Coverage(data_file=None, include=[path], config_file=False)
    looking.start()
    seconds = {}
    for item, following in zip(session.items, [*session.items[1:], None], strict=True):
        looking.switch_context(item.nodeid)
        began = time.process_time()
        run_item(item, following)
        seconds[item.nodeid] = time.process_time() - began
        if session.testsfailed:
            raise RuntimeError(f"{item.nodeid} fails before any change")
    looking.stop()
    lines: dict[str, list[int]] = {name: [] for name in seconds}
    for line, contexts in looking.get_data().contexts_by_lineno(path).items():
        for name in set(contexts) & lines.keys():
            lines[name].append(line)
    return {name: (seconds[name], lines[name]) for name in seconds}


def in_child(job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a job in a fork returns, by way of JSON. Raises RuntimeError with the job's error."""
    with tempfile.NamedTemporaryFile() as file:
        pid = os.fork()
        if pid == 0:
            try:
                content = json.dumps(job())
            except BaseException as error:  # noqa: BLE001 - told by the parent
                content = json.dumps(f"{type(error).__name__}: {error}")
            Path(file.name).write_text(content)
            os._exit(0)
        os.waitpid(pid, 0)
        found = json.loads(file.read())
    if isinstance(found, str):
        raise RuntimeError(found)
    return dict(found)


def fate_of(session: Any, mutant: Mutant, path: str, reached: dict[str, Reach]) -> str:
    """`killed`, `slow`, `survived`, `not reached`, or `not made`; in a process of its own."""
    items = [i for i in session.items if not reached[i.nodeid].lines.isdisjoint(mutant.lines)]
    if not items:
        return "not reached"
    items.sort(key=lambda item: reached[item.nodeid].cpu_s)
    patience = SLOWEST_S + int(10 * sum(reached[item.nodeid].cpu_s for item in items))
    pid = os.fork()
    if pid == 0:
        code = FAILED
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (patience, patience + 1))
            code = _run(session, items) if install(mutant, path) else NOT_MADE
        finally:
            os._exit(code)
    return {PASSED: "survived", NOT_MADE: "not made", -signal.SIGXCPU: "slow",
            -signal.SIGKILL: "slow"}.get(wait(pid, 30 + 10 * patience), "killed")  # fmt: skip


def _run(session: Any, items: list[Any]) -> int:
    for item in items:
        run_item(item)
        if session.testsfailed:
            return FAILED
    return PASSED


def wait(pid: int, patience_s: float) -> int:
    """The exit code; a process that waits for ever is killed."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.003)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def examine(
    name: str, most: int, tests_named: str, before: dict[str, Any] | None
) -> dict[str, Any]:
    """The mutants of one target, at most so many drawn at random, and what became of each.

    With a result of before: its survivors alone, which tests added since may kill.
    """
    import pytest

    module, tests = TARGETS[name]
    # by the name that tests know, which is not the one that pytest gives to a file of examples
    path = str(importlib.import_module(f"r2w_eval.{module}").__file__)
    paths = [path, *(str(ROOT / "tests" / f"{test}.py") for test in tests.split())]
    with tempfile.TemporaryDirectory() as folder, _silence() as told:
        target = Target(name, path, most, told, before)
        words = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={folder}/t",
                 "-k", tests_named]  # fmt: skip
        code = pytest.main([*words, *paths], [Examiner(target)])
    if target.result is None:
        raise RuntimeError(f"{name}: pytest ends with {code} before any change{target.trouble}")
    return target.result


@contextmanager
def _silence() -> Iterator[Callable[[str], None]]:
    """Suppress all output except through the yielded function."""
    kept, nothing = [os.dup(n) for n in (1, 2)], os.open(os.devnull, os.O_WRONLY)
    terminal = os.fdopen(os.dup(1), "w")
    for n in (1, 2):
        os.dup2(nothing, n)
    try:
        yield lambda text: print(text, file=terminal, flush=True)
    finally:
        for n, old in zip((1, 2), kept, strict=True):
            os.dup2(old, n)
            os.close(old)
        os.close(nothing)
        terminal.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--most", type=int, default=10_000, help="mutants of each, at random")
    parser.add_argument(
        "--tests", default="", metavar="EXPRESSION",
        help="only these, as for pytest -k: 'not over_http' spares whole runs, and kills no more",
    )  # fmt: skip
    parser.add_argument("--left", action="store_true", help="survivors of the last run alone")
    options = parser.parse_args()
    os.chdir(ROOT)
    for name in options.targets.split(","):
        began = time.monotonic()
        known = json.loads(RESULTS.read_bytes()) if RESULTS.exists() else []
        before = next((old for old in known if old["target"] == name and options.left), None)
        row = in_child(partial(examine, name, options.most, options.tests, before))
        known = [old for old in known if old["target"] != name] + [row]
        known.sort(key=lambda row: list(TARGETS).index(row["target"]))
        write_json(RESULTS, known)
        told = f"{row['run']} of {row['of']}, {row['fates']}"
        print(f"{name}: {told}, {time.monotonic() - began:.0f} s", flush=True)
    write_page()


if __name__ == "__main__":
    main()
