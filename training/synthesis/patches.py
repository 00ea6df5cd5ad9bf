"""Revisions as patches: numbered paragraphs, the changed ones written again.

A long draft is not written out twice; applying the patch gives the revised text byte for byte
(specification: r2write.md section 3.4).
"""

from __future__ import annotations

import re

from r2w_eval.errors import UsageError

_BREAK = re.compile(r"\n\s*\n")
_NUMBER = re.compile(r"^\[(\d{1,4})\][ \t]*\n?", re.MULTILINE)


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, as blank lines part them."""
    return [part for part in _BREAK.split(text.strip()) if part.strip()]


def numbered(text: str) -> str:
    """The text with a number over every paragraph.

    >>> print(numbered("One.\\n\\nTwo."))
    [1]
    One.
    <BLANKLINE>
    [2]
    Two.
    """
    return "\n\n".join(f"[{i}]\n{part}" for i, part in enumerate(paragraphs(text), 1))


def read_patch(patch: str) -> dict[int, str]:
    """The new paragraphs by number; an empty one takes its paragraph out. Raises UsageError.

    >>> read_patch("[2]\\nNew.\\n\\n[3]\\n")
    {2: 'New.', 3: ''}
    """
    heads = list(_NUMBER.finditer(patch))
    if not heads or patch[: heads[0].start()].strip():
        raise UsageError(
            f"patch {patch[:80]!r}: expected paragraphs under their numbers, as in [2] and then "
            f"the text. Ask for a full revision instead"
        )
    ends = [head.start() for head in heads[1:]] + [len(patch)]
    found: dict[int, str] = {}
    for head, end in zip(heads, ends, strict=True):
        number = int(head[1])
        if number in found:
            raise UsageError(f"patch: paragraph {number} stands there twice. Expected one each")
        found[number] = patch[head.end() : end].strip()
    return found


def apply_patch(text: str, patch: str) -> str:
    """The revised text. Raises UsageError for a number that no paragraph has.

    >>> apply_patch("One.\\n\\nTwo.", "[2]\\nNew.")
    'One.\\n\\nNew.'
    """
    parts = paragraphs(text)
    changes = read_patch(patch)
    for number in changes:
        if not 1 <= number <= len(parts):
            raise UsageError(f"patch: no paragraph {number}; the text has 1 to {len(parts)}")
    revised = (changes.get(number, part) for number, part in enumerate(parts, 1))
    return "\n\n".join(part for part in revised if part)
