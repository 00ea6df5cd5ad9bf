"""The code in numbers: functions, files, tests against source, import cycles.

    python benchmarks/code_metrics.py [--json]

Lines are physical lines of `.py` files; a function's lines are those from `def` to its end, its
decorators not counted.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDERS = ("r2w_eval", "tasks", "reward_models", "leaderboards", "training")
GUIDE_FUNCTION_P95, GUIDE_FILE_P95 = 45, 350


@dataclass(frozen=True, slots=True)
class Metrics:
    """Sizes of one folder, in lines."""

    folder: str
    files: int
    widest: int
    """Most files in one folder, those of its sub-folders not counted."""
    lines: int
    functions: int
    function_median: int
    function_p95: int
    function_max: int
    file_p95: int
    file_max: int


def percentile(values: Sequence[int], share: float) -> int:
    """The smallest value that at least this share of the values does not exceed; 0 of none.

    >>> percentile([5, 1, 3, 2], 0.5), percentile([], 0.5)
    (2, 0)
    """
    ordered = sorted(values)
    place = max(0, -(-len(ordered) * share // 1) - 1)
    return ordered[int(place)] if ordered else 0


def measure(root: Path, folder: str) -> Metrics:
    """Sizes of every Python file under a folder."""
    files = sources(root, folder)
    lengths = [len(path.read_text("utf-8").splitlines()) for path in files]
    functions = [length for path in files for length in function_lengths(path)]
    return Metrics(
        folder,
        len(files),
        max(Counter(path.parent for path in files).values(), default=0),
        sum(lengths),
        len(functions),
        percentile(functions, 0.5),
        percentile(functions, 0.95),
        max(functions, default=0),
        percentile(lengths, 0.95),
        max(lengths, default=0),
    )


def sources(root: Path, folder: str) -> list[Path]:
    """The Python files of a folder."""
    return sorted(path for path in (root / folder).rglob("*.py") if "__pycache__" not in path.parts)


def function_lengths(path: Path) -> list[int]:
    """Lines of every function and method of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in found]


def imports(root: Path, inside: bool = False) -> dict[str, set[str]]:
    """Modules of the package with those that they import: when they are loaded, or also inside
    their functions.
    """
    modules = {_name(root, path): path for folder in FOLDERS for path in sources(root, folder)}
    return {
        name: {target for target in _imports(path, modules, inside) if target != name}
        for name, path in modules.items()
    }


def _name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    parts = parts if parts[0] == "r2w_eval" else ("r2w_eval", *parts)
    return ".".join(parts).removesuffix(".__init__")


def _imports(path: Path, modules: Collection[str], inside: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree) if inside else tree.body:
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # a name of a package is a module of it, or stands in its __init__
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in modules else node.module for name in inner]
        else:
            continue
        yield from (name for name in found if name in modules)


def find_cycles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """One cycle for each edge that leads back; none in a graph without cycles.

    >>> find_cycles({"a": {"b"}, "b": {"a"}, "c": {"a"}})
    [('a', 'b', 'a')]
    """
    cycles: list[tuple[str, ...]] = []
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            cycles.append((*trail[trail.index(name) :], name))
        elif name not in done:
            for following in sorted(graph.get(name, ())):
                visit(following, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    return cycles


HEAD = """\
| folder | files | widest | lines | functions | median | 95 % | longest | file 95 % | file max |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"""


def markdown(root: Path) -> str:
    """A table of all folders, the tests beside them, and the import cycles."""
    rows = [measure(root, folder) for folder in (*FOLDERS, "tests")]
    code, tests = sum(row.lines for row in rows[:-1]), rows[-1].lines
    cycles = find_cycles(imports(root))
    told = "; ".join(" → ".join(cycle) for cycle in cycles) or "none"
    closing = f"Tests to source: {tests / code:.2f} lines a line. Import cycles: {told}."
    return f"{HEAD}{''.join(map(table_row, rows))}\n{closing}\n"


def table_row(row: Metrics) -> str:
    """One folder as a line of the table."""
    return (
        f"| `{row.folder}` | {row.files} | {row.widest} | {row.lines:,} | "
        f"{row.functions:,} | {row.function_median} | {row.function_p95} | {row.function_max} | "
        f"{row.file_p95} | {row.file_max} |\n"
    )


def page(root: Path) -> str:
    """The page of the documentation."""
    packages = sorted(path.parent.name for path in (root / "r2w_eval").glob("*/__init__.py"))
    inner = "".join(table_row(measure(root, f"r2w_eval/{name}")) for name in packages)
    return (
        "# The code in numbers\n\nMade by `python benchmarks/code_metrics.py`. Lengths are lines, "
        "*widest* is the most files in one folder; the guides are "
        f"{GUIDE_FUNCTION_P95} lines for the 95th percentile of functions and "
        f"{GUIDE_FILE_P95} for that of files (`tests/test_layout.py` holds the hard limits).\n\n"
        f"{markdown(root)}\n## The packages of the core\n\n{HEAD}{inner}"
        '\n## Layers\n\n<!-- diagram: layers -->\n\nAn arrow is "may import". Only the command '
        "line reaches everything, inside functions; a test enforces it.\n"
    )


def main() -> None:
    """Print the table, or the same as JSON."""
    root = Path(__file__).resolve().parent.parent
    if "--json" in sys.argv[1:]:
        rows = [asdict(measure(root, folder)) for folder in (*FOLDERS, "tests")]
        print(json.dumps({"folders": rows, "cycles": find_cycles(imports(root))}, indent=1))
    else:
        print(markdown(root), end="")


if __name__ == "__main__":
    main()
