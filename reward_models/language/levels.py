"""Categories of problems, the level of each, and the words that name them.

Levels are those of the method's specification, section 3.4. The cues, in `cues.yaml`, are ours.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from r2w_eval.reward_models.language.words import remembered

from r2w_eval.paths import packaged_text

LEVELS = (
    "mechanics",
    "wording",
    "sentence",
    "paragraph",
    "structure",
    "content",
    "voice",
    "theme",
    "instruction",
)


@cache
def load_yaml(name: str) -> dict[str, Any]:
    """A YAML file of this folder, cached; callers must not modify it."""
    import yaml

    text = packaged_text(name, __package__)
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@cache
def level_of() -> dict[str, str]:
    """The level of each category."""
    return {name: entry["level"] for name, entry in load_yaml("cues.yaml").items()}


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    entries = load_yaml("cues.yaml").items()
    return {name: re.compile(entry["cue"], re.IGNORECASE) for name, entry in entries}


@remembered
def named_categories(text: str) -> frozenset[str]:
    """Categories that the text names by their cue words.

    >>> sorted(named_categories("This image is a cliché."))
    ['cliche']
    """
    return frozenset(name for name, pattern in _patterns().items() if pattern.search(text))
