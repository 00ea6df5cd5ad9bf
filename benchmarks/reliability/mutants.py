"""Mutants: one function with one change, from a module's syntax tree."""

from __future__ import annotations

import ast
import copy
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.USub: ast.UAdd,
}  # fmt: skip
Change = Callable[[Any], None]


@dataclass(frozen=True)
class Mutant:
    """One change: in which function, in which statement, from what to what.

    code: the first line of the statement, which names a place for longer than its number does
    lines: of the statement, of a block's head alone
    """

    function: str
    line: int
    code: str
    before: str
    after: str
    lines: range
    tree: ast.Module


def mutants_of(source: str) -> Iterator[Mutant]:
    """Every change of every function of a module."""
    tree, rows = ast.parse(source), source.splitlines()
    for name, body in functions(tree):
        for statement in (node for own in body.body for node in ast.walk(own)):
            if not isinstance(statement, ast.stmt):
                continue
            lines = range(statement.lineno, last_line(statement) + 1)
            for node in own_nodes(statement):
                for change in changes(node):
                    # children as they are: the walk goes on to them
                    kept = {k: list(v) if isinstance(v, list) else v for k, v in vars(node).items()}
                    before = ast.unparse(node)
                    change(node)
                    yield Mutant(name, getattr(node, "lineno", statement.lineno),
                                 rows[statement.lineno - 1].strip(), before, ast.unparse(node),
                                 lines, copy.deepcopy(tree))  # fmt: skip
                    node.__dict__.update(kept)


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods, by qualified name; inner functions belong to their outer one."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for own in node.body:
                if isinstance(own, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{own.name}", own


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and its expressions.

    Without the statements inside it, annotations, and `strict=True`: no input makes that one act.
    """
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            is_part = isinstance(child, ast.AST) and not isinstance(child, ast.stmt)
            if is_part and name not in ("annotation", "returns"):
                yield from own_nodes(child)


def last_line(statement: ast.stmt) -> int:
    """Where a statement ends, or the head of a block."""
    body = getattr(statement, "body", None)
    return body[0].lineno - 1 if body else statement.end_lineno or statement.lineno


def changes(node: ast.AST) -> Iterator[Change]:
    """Functions that change a node in place."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp) and type(node.op) in SWAPS:
        yield lambda n: setattr(n, "op", SWAPS[type(n.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]())
    elif isinstance(node, ast.IfExp | ast.If | ast.While):
        yield lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    elif isinstance(node, ast.Return) and ast.unparse(node) not in ("return", "return None"):
        yield lambda n: setattr(n, "value", ast.Constant(None))
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        is_bool = isinstance(node.value, bool)
        yield lambda n: setattr(n, "value", not n.value if is_bool else n.value + 1)


def install(mutant: Mutant, path: str) -> bool:
    """Give the live function of the module at a path the changed code; whether it could."""
    code = compile(ast.fix_missing_locations(mutant.tree), path, "exec")
    for part in mutant.function.split("."):
        inner = [c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == part]
        if not inner:
            return False
        code = inner[0]
    modules = [m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == path]
    return bool(modules) and all(_replace(module, mutant.function, code) for module in modules)


def _replace(module: types.ModuleType, name: str, code: types.CodeType) -> bool:
    owner: Any = module
    for part in name.split("."):
        owner = vars(owner).get(part)
        owner = getattr(owner, "__func__", None) or getattr(owner, "fget", None) or owner
    if hasattr(owner, "cache_clear"):
        owner.cache_clear()
    owner = getattr(owner, "__wrapped__", owner)
    if not isinstance(owner, types.FunctionType) or code.co_freevars:
        return False
    owner.__code__ = code
    return True
