"""The questions and instructions of the synthesis loop and of rewards: the files in `templates`."""

from __future__ import annotations

import functools

from r2w_eval.paths import packaged_text
from r2w_eval.template import Template


@functools.cache
def load_wording(name: str) -> Template:
    """One of the texts in `training/templates`, without blank lines around it."""
    return Template(name, packaged_text(f"templates/{name}.txt", __package__).strip())
