"""The questions and instructions of the synthesis loop and of rewards: the files in `templates`."""

from __future__ import annotations

from r2w_eval.template import Template, load_prompt


def load_wording(name: str) -> Template:
    """One of the texts in `training/templates`."""
    return load_prompt(name, "r2w_eval.training", "templates")
