"""Mutation testing of the formulas: `python -m benchmarks.reliability.mutation [--targets stats]`.

A mutant is one function with one change: another operator, comparison or constant, a condition
negated, a returned value lost. It replaces the function's code inside a forked process that has
everything imported, so a mutant costs the tests that reach its function and nothing else; which
tests these are is found by running them once under a profiler. (mutmut and cosmic-ray start an
interpreter a mutant, and do not know packages whose folders have other names than they.)

Killed: a test fails, or the tests take ten times as long. Survived: all pass.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import json
import os
import random
import signal
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.page import FOLDER, write_page
from benchmarks.reliability.process import ROOT

RESULTS = FOLDER / "mutation.json"
STATS_TESTS = ("tests/stats/test_stats.py", "tests/test_estimates.py")
TARGETS: dict[str, tuple[str, list[str]]] = {
    "stats": ("r2w_eval.stats.inference", [*STATS_TESTS]),
    "resampling": ("r2w_eval.stats.resampling", [*STATS_TESTS]),
    "advantages": ("r2w_eval.training.rl.advantages", ["tests/training/rl/test_advantages.py"]),
    "losses": (
        "r2w_eval.reward_models.transformer.losses",
        ["tests/reward_models/transformer/test_losses.py"],
    ),
    "writingbench": ("r2w_eval.tasks.writingbench.utils", ["tests/tasks/test_writingbench.py"]),
    "eqbench_creative_v3": (
        "r2w_eval.tasks.eqbench_creative_v3.scoring", ["tests/tasks/test_eqbench_creative_v3.py"],
    ),
}  # fmt: skip
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.USub: ast.UAdd,
}  # fmt: skip
SLOWEST = 10.0


@dataclass(frozen=True)
class Mutant:
    """One change: in which function, at which line, from what to what."""

    target: str
    function: str
    line: int
    before: str
    after: str
    tree: ast.Module


TOLD = ("target", "function", "line", "before", "after")


def mutants_of(target: str, tree: ast.Module) -> Iterator[Mutant]:
    """Every change of every function of a module."""
    for name, body in functions(tree):
        for node in (node for statement in body.body for node in ast.walk(statement)):
            for change in changes(node):
                # children as they are: the walk goes on to them, and must find them in the tree
                kept = {k: list(v) if isinstance(v, list) else v for k, v in vars(node).items()}
                before = ast.unparse(node)
                change(node)
                line = getattr(node, "lineno", body.lineno)
                yield Mutant(target, name, line, before, ast.unparse(node), copy.deepcopy(tree))
                node.__dict__.update(kept)


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods, by qualified name; inner functions belong to their outer one."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for own in node.body:
                if isinstance(own, ast.FunctionDef):
                    yield f"{node.name}.{own.name}", own


def changes(node: ast.AST) -> Iterator[Any]:
    """Functions that change a node in place."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp) and type(node.op) in SWAPS:
        yield lambda n: setattr(n, "op", SWAPS[type(n.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]())
    elif isinstance(node, ast.IfExp | ast.If | ast.While):
        yield lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    elif isinstance(node, ast.Return) and node.value is not None:
        yield lambda n: setattr(n, "value", ast.Constant(None))
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        is_bool = isinstance(node.value, bool)
        yield lambda n: setattr(n, "value", not n.value if is_bool else n.value + 1)


class NoShrinking:
    """A counterexample kills; how small it can be made is not asked."""

    def pytest_collection(self) -> None:
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", phases=phases, database=None, deadline=None)
        settings.load_profile("mutants")


class Reached:
    """A pytest plugin: which functions of a file each test calls, and how long it takes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.tests: dict[str, set[str]] = {}
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_runtest_setup(self, item: Any) -> None:
        def look(frame: types.FrameType, event: str, _: object) -> None:
            if event == "call" and frame.f_code.co_filename == self.file:
                name = frame.f_code.co_qualname.split(".<locals>")[0]
                self.tests.setdefault(name, set()).add(item.nodeid)

        sys.setprofile(look)

    def pytest_runtest_teardown(self, item: Any) -> None:
        sys.setprofile(None)


def run_tests(names: list[str], *plugins: object) -> int:
    """pytest's exit code, its output thrown away."""
    import pytest

    silence = os.open(os.devnull, os.O_WRONLY)
    kept = [os.dup(n) for n in (1, 2)]
    for n in (1, 2):
        os.dup2(silence, n)
    try:
        words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *names]
        return int(pytest.main(words, [NoShrinking(), *plugins]))
    finally:
        for n, old in zip((1, 2), kept, strict=True):
            os.dup2(old, n)


def install(mutant: Mutant, module: types.ModuleType) -> bool:
    """Give the live function the changed code; whether it could."""
    code = compile(ast.fix_missing_locations(mutant.tree), str(module.__file__), "exec")
    owner: Any = module
    for part in mutant.function.split("."):
        found = [c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == part]
        if not found:
            return False
        code, owner = found[0], vars(owner).get(part)
        owner = getattr(owner, "__func__", None) or getattr(owner, "fget", None) or owner
    if hasattr(owner, "cache_clear"):
        owner.cache_clear()
    owner = getattr(owner, "__wrapped__", owner)
    if not isinstance(owner, types.FunctionType) or len(code.co_freevars):
        return False
    owner.__code__ = code
    return True


def fate_of(mutant: Mutant, module: types.ModuleType, reached: Reached) -> str:
    """`killed`, `slow`, `survived`, `not reached`, or `not made`; in a process of its own."""
    tests = sorted(reached.tests.get(mutant.function, ()), key=lambda t: reached.seconds[t])
    if not tests:
        return "not reached"
    patience = SLOWEST + 10 * sum(reached.seconds[t] for t in tests)
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = run_tests(tests) if install(mutant, module) else 71
        finally:
            os._exit(code)
    until = time.monotonic() + patience
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return {0: "survived", 71: "not made"}.get(code, "killed")
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "slow"


def examine(target: str, most: int) -> Iterator[dict[str, Any]]:
    """The mutants of one module, at most so many drawn at random, and what became of each."""
    name, tests = TARGETS[target]
    module = importlib.import_module(name)
    source = str(module.__file__)
    reached = Reached(source)
    if code := run_tests([str(ROOT / path) for path in tests], reached):
        raise RuntimeError(f"{tests} ends with {code} before any change")
    print(f"{target}: {len(reached.seconds)} tests in {sum(reached.seconds.values()):.0f} s")
    mutants = list(mutants_of(target, ast.parse(Path(source).read_text("utf-8"))))
    random.Random(0).shuffle(mutants)
    for mutant in mutants[:most]:
        fate = fate_of(mutant, module, reached)
        if fate not in ("killed", "slow"):
            print(f"{fate:11} {target}:{mutant.line} {mutant.function}: {mutant.before!r} -> "
                  f"{mutant.after!r}", flush=True)  # fmt: skip
        told = {name: getattr(mutant, name) for name in TOLD}
        yield {**told, "fate": fate, "of": len(mutants)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--most", type=int, default=10_000, help="mutants of each, at random")
    options = parser.parse_args()
    os.chdir(ROOT)
    known = json.loads(RESULTS.read_bytes()) if RESULTS.exists() else []
    for target in options.targets.split(","):
        known = [row for row in known if row["target"] != target]
        for row in examine(target, options.most):
            known.append(row)
            RESULTS.write_text(json.dumps(known, indent=0) + "\n")
    write_page()


if __name__ == "__main__":
    main()
