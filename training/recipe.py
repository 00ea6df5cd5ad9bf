"""Recipes: one YAML file per pipeline with a section per stage, checked before anything runs.

A section's keys are the fields of the stage's settings; an unknown key is an error that names the
nearest one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from r2w_eval.config import load_yaml
from r2w_eval.errors import UnknownName, UsageError

S = TypeVar("S")


def recipe_path(name: str) -> Path:
    """The path of a recipe: `name` is a file or one of the shipped recipes. Raises UnknownName."""
    if Path(name).is_file():
        return Path(name)
    folder = Path(str(resources.files(__package__).joinpath("recipes")))
    own = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in own:
        raise UnknownName("recipe", name, "recipe", own, "r2w-eval train --help")
    return own[name]


def read_recipe(path: Path, stages: Mapping[str, type]) -> dict[str, Any]:
    """The settings of every stage by section; a missing section gets the defaults.

    Raises UsageError, UnknownName.
    """
    try:
        content = load_yaml(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path}: {error}. Expected YAML with a section per stage") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected sections {', '.join(stages)}, each with its settings")
    for name in content:
        if name not in stages:
            raise UnknownName(f"{path}:", str(name), "section", stages, f"see {path.name}")
    given = {name: {} if own is None else own for name, own in content.items()}
    return {
        name: read_settings(kind, given.get(name, {}), f"{path}: {name}")
        for name, kind in stages.items()
    }


def read_settings(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """A settings object from YAML values; nested settings come from nested mappings.

    Raises UnknownName for an unknown key, UsageError for a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{where}: {str(values)[:80]!r} is no mapping. Expected `setting: value`")
    types = get_type_hints(kind)
    known = {field.name: types[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    chosen = {}
    for name, value in values.items():
        if name not in known:
            raise UnknownName(f"{where}.", str(name), "setting", known, "see the recipe's comments")
        chosen[name] = _read_value(known[name], value, f"{where}.{name}")
    return kind(**chosen)


def _read_value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
        return read_settings(kind, value, where)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{where}: {value!r:.80}: expected a list, as in [1, 2]")
        return tuple(_read_value(get_args(kind)[0], one, where) for one in value)
    choices = get_args(kind)
    if choices and all(isinstance(choice, str) for choice in choices):
        if value not in choices:
            raise UsageError(f"{where}: {value!r:.80}: expected {' or '.join(choices)}")
        return value
    allowed = choices or (kind,)
    if float in allowed and not isinstance(value, bool):
        value = _as_float(value)
    if type(value) not in allowed or (isinstance(value, float) and math.isnan(value)):
        names = " or ".join(getattr(one, "__name__", str(one)) for one in allowed)
        raise UsageError(f"{where}: {value!r:.80}: expected {names}")
    return value


def _as_float(value: Any) -> Any:
    """YAML reads 3 as a whole number and 1e-5, which has no point, as text."""
    try:
        return float(value) if isinstance(value, (int, str)) else value
    except ValueError:
        return value
