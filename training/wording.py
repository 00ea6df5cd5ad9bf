"""Prompt templates of the synthesis loop and of the rewards: the files in `templates`."""

from __future__ import annotations

from r2w_eval.template import Template, load_prompt


def load_wording(name: str) -> Template:
    """The prompt template `training/templates/<name>.txt`."""
    return load_prompt(name, "r2w_eval.training", "templates")
