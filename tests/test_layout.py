"""The house rules, checked on the source: layers, cycles, weight, packages, suites, sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from r2w_eval.suites.suite import load_info, load_module, load_suite, suite_folders

metrics: Any = load_module(ROOT / "benchmarks" / "code_metrics.py", "code_metrics")

LAYERS = {
    "r2w_eval": {"r2w_eval"},
    "tasks": {"r2w_eval", "tasks"},
    "leaderboards": {"r2w_eval", "leaderboards"},
    "reward_models": {"r2w_eval", "reward_models"},
    "training": {"r2w_eval", "reward_models", "training"},
}
# Inside a folder, lowest first: a module imports from lines above its own, or beside it
CORE = (
    "errors types waiting terminal wheels paths hashing template installed named_objects",
    "data store estimates plots fakeserver ranks text stats web",
    "models",
    "judge suites",
    "records doctor",
    "config trace",
    "reflection",
    "results",
    "run",
    "comparison lmeval_tasks",
    "judge_check",
    "cli __main__",
)
REWARD_MODELS = (
    "axes items language",
    "data",
    "judge linear transformer",
    "scorer",
    "adapters checks ensemble quality rules serving",
    "commands",
)
TRAINING = (
    "limits prompts recipe specials journal wording contamination checkpoints",
    "judging trainer",
    "synthesis rl",
    "cluster",
    "pipeline",
)
HEAVY = ("torch", "transformers", "vllm", "trl", "lm_eval", "datasets")
LIGHT_COMMAND = (*HEAVY, "numpy", "scipy", "pandas", "matplotlib", "aiohttp")
MAX_FUNCTION_LINES = 80
MAX_FILE_LINES = 400


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def layer_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] in LAYERS and parts[0] != "r2w_eval":
        return parts[0]
    if parts[0] != "r2w_eval":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "r2w_eval"


def test_a_test_file_that_cannot_be_imported_is_an_error() -> None:
    """pytest's flag for doctests of missing engines passes over such a file without a word."""
    assert "ignore-import-errors" not in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("folder", LAYERS)
def test_no_module_imports_a_layer_above_its_own(folder: str) -> None:
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(folder)
        if path.relative_to(ROOT).parts[:2] != ("r2w_eval", "cli")
        for line, module in imported(ast.parse(path.read_text("utf-8")))
        if (layer := layer_of(module)) is not None and layer not in LAYERS[folder]
    ]
    assert not upward, "\n".join(upward)


def place_in(folder: str, module: str) -> str | None:
    """`judge` of `r2w_eval.judge.parsing`; None of modules of another folder."""
    top = "r2w_eval." if folder == "r2w_eval" else f"r2w_eval.{folder}."
    place = module.removeprefix(top).partition(".")[0]
    return place if module.startswith(top) and place not in LAYERS else None


@pytest.mark.parametrize(
    ("folder", "lines"),
    [("r2w_eval", CORE), ("reward_models", REWARD_MODELS), ("training", TRAINING)],
)
def test_the_packages_of_a_folder_form_layers(folder: str, lines: tuple[str, ...]) -> None:
    level = {place: number for number, line in enumerate(lines) for place in line.split()}
    graph: dict[str, set[str]] = {}
    for name, targets in metrics.imports(ROOT, inside=True).items():
        if place := place_in(folder, name):
            below = {place_in(folder, target) for target in targets} - {place, None}
            graph.setdefault(place, set()).update(map(str, below))
    assert set(graph) == set(level)
    upward = [(a, b) for a, below in graph.items() for b in below if level[b] > level[a]]
    assert not upward
    assert not metrics.find_cycles(graph)


def test_there_are_no_import_cycles() -> None:
    # imports inside functions do not run at import and so cannot close a cycle
    cycles = metrics.find_cycles(metrics.imports(ROOT))
    assert not cycles, "\n".join(" -> ".join(cycle) for cycle in cycles)


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True
    )
    return done.stdout


@pytest.mark.parametrize("word", ["--help", "list"])
def test_help_and_list_import_nothing_heavy(word: str) -> None:
    code = (
        "import sys\nfrom r2w_eval import cli\n"
        f"try:\n cli.cli.main([{word!r}], standalone_mode=False)\nexcept SystemExit: pass\n"
        f"print('LOADED', [m for m in {LIGHT_COMMAND!r} if m in sys.modules])"
    )
    assert run_python(code).strip().endswith("LOADED []")


def test_every_core_module_imports_without_the_heavy_packages() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sources("r2w_eval")
        if not path.stem.startswith("__")
    ]
    code = (
        "import sys, importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def test_the_packages_listed_are_the_folders_that_exist() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    listed = set(config["tool"]["setuptools"]["packages"])
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for layer in LAYERS
        for path in (ROOT / layer).glob("**/__init__.py")
    }
    assert listed == {
        name if name.startswith("r2w_eval") else f"r2w_eval.{name}" for name in folders
    }
    for name in LAYERS:
        assert not (ROOT / "r2w_eval" / f"{name}.py").exists(), "would shadow the mapped package"


def test_the_tests_lie_as_what_they_test() -> None:
    packages = {path.parent.name for path in (ROOT / "r2w_eval").glob("*/__init__.py")}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders - {*LAYERS} == packages
    for folder in ("reward_models", "training"):
        inner = {path.parent.name for path in (ROOT / "tests" / folder).glob("*/test_*.py")}
        assert inner <= {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}


@pytest.mark.parametrize("name", suite_folders())
def test_every_suite_loads(name: str) -> None:
    info = load_info(name)
    suite = load_suite(info.folder)
    assert {"strict"} <= set(suite.parse_verdict) <= {"parity", "strict"}
    assert info.decoding.max_tokens, "lm-eval's default of 256 tokens would cut every text"
    assert (info.folder / "README.md").is_file()


def test_every_task_folder_is_a_suite() -> None:
    folders = {p.name for p in (ROOT / "tasks").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == set(suite_folders())


def test_functions_and_files_stay_short() -> None:
    too_long = []
    for folder in LAYERS:
        for path in sources(folder):
            text = path.read_text("utf-8")
            if text.count("\n") > MAX_FILE_LINES:
                too_long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    length = (node.end_lineno or 0) - node.lineno
                    if length > MAX_FUNCTION_LINES:
                        too_long.append(f"{path.relative_to(ROOT)}:{node.lineno} {length} lines")
    assert not too_long, "\n".join(too_long)


def test_every_module_says_what_it_does() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for folder in LAYERS
        for path in sources(folder)
        if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert not silent, silent
