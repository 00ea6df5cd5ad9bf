"""Cues: regular expressions of words that show what a remark does, from `cue_words.yaml`."""

from __future__ import annotations

import re
from functools import cache

from r2w_eval.reward_models.language.levels import load_yaml
from r2w_eval.reward_models.language.words import quotations, remembered, without


@cache
def cue(name: str) -> re.Pattern[str]:
    """A compiled cue of `cue_words.yaml`."""
    return re.compile(load_yaml("cue_words.yaml")[name], re.IGNORECASE)


@remembered
def unquoted(text: str) -> str:
    """The text without its quotations.

    >>> unquoted('The word "dark" is vague.')
    'The word "" is vague.'
    """
    return without(text, quotations(text))
