"""The filter for reflections: they must be the writer's own and must not reveal the judge.

It is a pure function that gives a reason for every refusal (specification: r2write.md section 3.3).
Refused reflections are asked for again; after some attempts the episode ends, with the reasons
counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

import yaml
from r2w_eval.reward_models.language.words import containment, quotations, words
from r2w_eval.training.prompts import LANGUAGES

from r2w_eval.errors import UsageError
from r2w_eval.models.cost import estimate_tokens
from r2w_eval.paths import packaged_text

MAX_SIMILARITY = 0.8
MAX_SHARE_OF_DRAFT = 0.25
MIN_CAP_TOKENS = 200

# in words only where it cannot be an adverb or a saying (十分, 三分热, 入木三分)
_MARK = re.compile(
    r"\d+(?:\.\d+)?\s*(?:/\s*10(?!\d)|分(?!钟|之|成|布|析|明|段|别|享|组))"
    r"|(?<!木)[二两三四五六七八九](?:点[一二三四五六七八九])?分(?=[\s,,。;;!!、]|左右|以[上下]|$)"
)
_SPACE = re.compile(r"\s+")


class Leak(StrEnum):
    """Why a reflection is refused."""

    EMPTY = "empty"
    NAMES_A_JUDGE = "names_a_judge"
    GIVES_A_MARK = "gives_a_mark"
    REPORTS_ANOTHER = "reports_another"
    NOT_FIRST_PERSON = "not_first_person"
    QUOTES_WHAT_IS_NOT_THERE = "quotes_what_is_not_there"
    REPEATS_ITSELF = "repeats_itself"
    TOO_LONG = "too_long"
    PRAISE_ONLY = "praise_only"


@dataclass(frozen=True, slots=True)
class Thought:
    """A reflection and what it is checked against. `lang` is a tag of en or zh."""

    text: str
    lang: str
    prompt: str
    draft: str
    earlier: tuple[str, ...] = ()


@cache
def _cues(kind: str, lang: str) -> re.Pattern[str]:
    phrases = _read_cues()[kind][language_of(lang)]
    return re.compile("|".join(map(_as_word, phrases)), re.IGNORECASE)


@cache
def _speaking(kind: str) -> tuple[re.Pattern[str], ...]:
    """Patterns of words about a judge (`others`) or anyone else (`reported`), one for all forms of
    a word.
    """
    return tuple(
        re.compile("|".join(map(_as_word, forms)), re.IGNORECASE) for forms in _read_cues()[kind]
    )


def language_of(tag: str) -> str:
    """The language of a BCP 47 tag.

    >>> language_of("zh-Hans"), language_of("EN_us")
    ('zh', 'en')
    """
    return re.split("[-_]", tag.lower())[0]


def _read_cues() -> Any:
    return yaml.safe_load(packaged_text("leak_cues.yaml", __package__))


def _as_word(phrase: str) -> str:
    """The phrase as a pattern. English words match whole, also next to Chinese: 我的score."""
    own = re.escape(phrase)
    return rf"(?<![^\W\d_㐀-鿿]){own}(?![^\W\d_㐀-鿿])" if phrase.isascii() else own


def check_language(name: str, tag: str) -> None:
    """Raise UsageError for a prompt in a language in which the judge's voice is not told from the
    writer's: all its reflections would be refused.
    """
    if language_of(tag) not in LANGUAGES:
        raise UsageError(
            f"prompt {name!r}: lang {tag!r}: the loop reads reflections in "
            f"{' and '.join(LANGUAGES)} alone. Take the prompt out, or correct its lang"
        )


def find_leak(thought: Thought) -> Leak | None:
    """The first reason to refuse a reflection, or None.

    >>> draft = "The night was dark."
    >>> find_leak(Thought('I wrote "dark" twice; I will cut one.', "en", "A story.", draft))
    >>> str(find_leak(Thought("The reviewer is right.", "en", "A story.", draft)))
    'names_a_judge'
    """
    if not thought.text.strip():
        return Leak.EMPTY
    for leak, is_found in _CHECKS.items():
        if is_found(thought):
            return leak
    return None


def names_a_judge(thought: Thought) -> bool:
    """It uses a word about a judge or verdict that the prompt does not use in any form."""
    return _speaks(thought, "others")


def reports_another(thought: Thought) -> bool:
    """It repeats what someone else has said of the text."""
    return _speaks(thought, "reported")


def _speaks(thought: Thought, kind: str) -> bool:
    cues = _speaking(kind)
    return any(cue.search(thought.text) and not cue.search(thought.prompt) for cue in cues)


def gives_a_mark(thought: Thought) -> bool:
    """It gives a mark that is not in the prompt: 8/10, 7 分, 八分."""
    return any(mark not in thought.prompt for mark in _MARK.findall(thought.text))


def shows_a_judge(texts: Iterable[str], lang: str, prompt: str, draft: str) -> bool:
    """Whether any of the texts mentions a judge or a mark. Words of the prompt are allowed, and
    those of the first draft, which was written before any verdict.
    """
    thought = Thought("\n".join(texts), lang, f"{prompt}\n{draft}", draft)
    return names_a_judge(thought) or gives_a_mark(thought)


def is_impersonal(thought: Thought) -> bool:
    """It is not in the first person."""
    return not _cues("first_person", thought.lang).search(thought.text)


def misquotes(thought: Thought) -> bool:
    """It quotes something that is not in the draft; white space and case are ignored."""
    draft = _SPACE.sub("", thought.draft).lower()
    return any(_SPACE.sub("", q).lower() not in draft for q in quotations(thought.text))


def repeats(thought: Thought) -> bool:
    """It nearly repeats an earlier reflection."""
    own = words(thought.text)
    return any(containment(own, words(other), 3) > MAX_SIMILARITY for other in thought.earlier)


def is_too_long(thought: Thought) -> bool:
    """It is longer than a quarter of the draft, and than MIN_CAP_TOKENS."""
    cap = max(MIN_CAP_TOKENS, MAX_SHARE_OF_DRAFT * estimate_tokens(thought.draft))
    return estimate_tokens(thought.text) > cap


def is_praise(thought: Thought) -> bool:
    """It names neither a fault nor a change."""
    return not _cues("substance", thought.lang).search(thought.text)


_CHECKS = {
    Leak.NAMES_A_JUDGE: names_a_judge,
    Leak.GIVES_A_MARK: gives_a_mark,
    Leak.REPORTS_ANOTHER: reports_another,
    Leak.NOT_FIRST_PERSON: is_impersonal,
    Leak.QUOTES_WHAT_IS_NOT_THERE: misquotes,
    Leak.REPEATS_ITSELF: repeats,
    Leak.TOO_LONG: is_too_long,
    Leak.PRAISE_ONLY: is_praise,
}
