"""What a revision changed, in the few words that a reward model reads of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r2w_eval.reward_models.language.words import changed_places, remembered, token_spans, tokens

CONTEXT = 4
"""Tokens shown on either side of a change."""
HALF = 8
"""Tokens shown of either end of a removed stretch: the draft has the rest."""
APART = 3
"""Changes with fewer tokens between them are shown as one."""
MOST_GONE = 0.8
"""Above this share of the draft's tokens a revision is another text, and shown whole."""

Place = tuple[int, int, int, int]


@remembered
def revision_digest(draft: str, revision: str) -> str:
    """The changed words with some around them; nothing when no word changed, the whole revision
    when little of the draft is left.

    To which words a remark led is what a reader has to know, and a small one finds them between two
    whole sentences only after far more training (EXPERIMENTS.md, 44).

    >>> revision_digest("He walks home. It is late.", "He walked home. It is late.")
    'He [-walks-]{+walked+} home. It is …'
    >>> revision_digest("One. Two.", "One.")
    'One. [-Two.-]'
    """
    places = _joined(changed_places(tokens(draft), tokens(revision)))
    old, new = _Tokens.of(draft), _Tokens.of(revision)
    if not places:
        return ""
    if new.spans and sum(b - a for a, b, _, _ in places) > MOST_GONE * len(old.spans):
        return revision
    shown: list[str] = []
    at = 0
    for a, b, c, d in places:
        shown.append(old.ends(at, a, CONTEXT if shown else 0, CONTEXT))
        gone, put = old.ends(a, b, HALF, HALF), new.ends(c, d, d - c, 0)
        shown.append((f"[-{gone}-]" if gone else "") + (f"{{+{put}+}}" if put else ""))
        at = b
    shown.append(old.ends(at, len(old.spans), CONTEXT, 0))
    return " ".join(part for part in shown if part)


def _joined(places: Sequence[Place]) -> list[Place]:
    """Places that nearly touch as one."""
    found: list[Place] = []
    for a, b, c, d in places:
        if found and a - found[-1][1] < APART:
            a, _, c, _ = found.pop()
        found.append((a, b, c, d))
    return found


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A text and where its tokens stand."""

    text: str
    spans: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, text: str) -> _Tokens:
        return cls(text, token_spans(text))

    def ends(self, start: int, end: int, first: int, last: int) -> str:
        """The text of some tokens, of more than `first + last` only so many at either end."""
        if end - start <= first + last:
            return self._part(start, end)
        parts = (self._part(start, start + first), "…", self._part(end - last, end))
        return " ".join(part for part in parts if part)

    def _part(self, start: int, end: int) -> str:
        return self.text[self.spans[start][0] : self.spans[end - 1][1]] if start < end else ""
