"""Recipes of the transformer reward model: YAML files of `TrainConfig`, by name or by path."""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.paths import packaged_text

if TYPE_CHECKING:
    from r2w_eval.reward_models.transformer.config import TrainConfig

FOLDER = "recipes"


def recipe_names() -> list[str]:
    """Names of the packaged recipes."""
    folder = resources.files(__package__).joinpath(FOLDER)
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name[-5:] == ".yaml")


def load_recipe(spec: str) -> TrainConfig:
    """A recipe by name, or a YAML file. Raises UnknownName, UsageError."""
    import yaml
    from r2w_eval.reward_models.transformer.backbone import BackboneConfig
    from r2w_eval.reward_models.transformer.config import TrainConfig

    path = Path(spec)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"--recipe {spec!r}: no such file. Packaged: {recipe_names()}")
        text = path.read_text("utf-8")
    elif spec in recipe_names():
        text = packaged_text(f"{FOLDER}/{spec}.yaml", __package__)
    else:
        raise UnknownName("--recipe", spec, "recipe", recipe_names(), "or name a .yaml file")
    try:
        given: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--recipe {spec!r}: not YAML: {error}") from error
    if not isinstance(given, dict) or not isinstance(given.get("backbone", {}), dict):
        raise UsageError(f"--recipe {spec!r}: expected a mapping, backbone a mapping in it")
    shape = given.pop("backbone", {})
    for own, kind in ((given, TrainConfig), (shape, BackboneConfig)):
        allowed = [f.name for f in fields(kind)]
        for key in own:
            if key not in allowed:
                raise UnknownName(f"--recipe {spec}", str(key), "setting", allowed, "see the file")
    return TrainConfig(backbone=BackboneConfig(**shape), **given)
