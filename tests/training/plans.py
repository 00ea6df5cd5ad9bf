"""What a plan of a recipe holds, for tests of its stages."""

from __future__ import annotations

from r2w_eval.training.pipeline.plan import plan_pipeline
from r2w_eval.training.pipeline.recipe import Recipe


def keys(recipe: Recipe) -> dict[str, str]:
    """The key of each stage by name."""
    return {stage.name: stage.key for stage in plan_pipeline(recipe)}
