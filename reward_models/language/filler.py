"""What stands around a remark or a piece of writing, and must not change its score.

Self-praise, politeness, orders to a scorer, verdicts and tags, as far as the cue words know them.
"""

from __future__ import annotations

import re

from r2w_eval.reward_models.language.cues import cue, unquoted
from r2w_eval.reward_models.language.words import remembered, sentences, speech, without

# tags of traces, and end-of-turn tokens of models
_TAG = re.compile(
    r"</?(?:plan|draft|reflection|revision|think)>|<\|[a-z_0-9]+\|>|</s>|<end_of_turn>"
    r"|<｜[a-z▁]+｜>",
    re.IGNORECASE,
)
# longer texts are returned as they are: readers take less, and refuse them or read a part again
MAX_CLEANED = 60_000
FILLER = ("self_praise", "politeness", "injection", "slogan")
# text around a piece is looked for in this many sentences at its end
BORDER = 6
PARATEXT = ("self_praise", "politeness", "injection", "paratext")
_VERDICT = re.compile(
    # blanks are tried from their first one alone, or a long run of them takes its square
    r"<(score|rating|grade|verdict)>[^<>]{0,40}</\1>|</?[a-z_]{1,20}>"
    r"|(?<!\s)\s*[\[{][^\[\]{}]{0,400}\b(?:score|rating|grade|verdict)\b[^\[\]{}]{0,400}[\]}]\s*$",
    re.IGNORECASE,
)


@remembered
def clean(text: str, before: str = "") -> str:
    """The text without tags and filler; `before` as in `strip_filler`. Above MAX_CLEANED characters
    of either the text as it is.
    """
    if max(len(text), len(before)) > MAX_CLEANED:
        return text
    return strip_filler(_TAG.sub("", text), before)


def strip_filler(text: str, before: str = "") -> str:
    """The text without sentences of self-praise, politeness or orders to the scorer.

    Removing them makes the score independent of them. Sentences that the text `before` had stay: a
    letter may thank its reader. If nothing would be left, the text is returned unchanged.

    >>> strip_filler("The verb is wrong. This fixes everything!")
    'The verb is wrong.'
    """
    kept = [
        part
        for part in split_with_ends(text)
        if not _is_filler(part) or (before and part.strip() in before)
    ]
    return "".join(kept).strip() or text


@remembered
def _is_filler(sentence: str) -> bool:
    bare = unquoted(sentence)
    return any(cue(name).search(bare) for name in FILLER)


def body_of(text: str) -> str:
    """The piece without self-praise, thanks, orders to a judge and verdicts around it.

    Removed are whole sentences at the end, tags, and a verdict after the end; never quoted speech,
    nor anything inside the piece. If nothing would be left, or above MAX_CLEANED characters, the
    text is returned unchanged.

    >>> body_of("A gate stood open. It was worth it. Thank you for reading! This is my best work.")
    'A gate stood open. It was worth it.'
    """
    if len(text) > MAX_CLEANED:
        return text
    parts = split_with_ends(_VERDICT.sub("", text))
    last = len(parts)
    while last > max(0, len(parts) - BORDER) and _is_paratext(parts[last - 1]):
        last -= 1
    return "".join(parts[:last]).strip() or text


def _is_paratext(sentence: str) -> bool:
    bare = without(sentence, speech(sentence))
    return any(cue(name).search(bare) for name in PARATEXT)


def split_with_ends(text: str) -> list[str]:
    """Sentences with the white space before them, so that joining gives the text back."""
    parts, start = [], 0
    for sentence in sentences(text):
        end = text.find(sentence, start) + len(sentence)
        parts.append(text[start:end])
        start = end
    return parts
