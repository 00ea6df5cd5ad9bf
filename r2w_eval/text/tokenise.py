"""Word tokens as NLTK's `word_tokenize` makes them, for two of its releases, from one install.

Published counts of length and slop stem from different releases of NLTK, which cut words
differently; each is offered by its number. NLTK supplies the rules and the sentence splitter; this
module states only where the releases differ. The English sentence model of `punkt_tab` is data:
fetched and checked on first use, never bundled.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from r2w_eval.data import download_checked
from r2w_eval.errors import DataError, UsageError
from r2w_eval.hashing import text_hash
from r2w_eval.paths import cache_dir
from r2w_eval.wheels import extract_member

Release = Literal["3.9.1", "3.10.4"]
Substitution = tuple[re.Pattern[str], str]

PUNKT_WHEEL = "llama-index-core==0.14.25"
PUNKT_MEMBER = "llama_index/core/_static/nltk_cache/tokenizers/punkt_tab.zip"
PUNKT_URL = (
    "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/tokenizers/punkt_tab.zip"
)
PUNKT_FILES = {
    "abbrev_types.txt": "92a3e070f43d9b4c5534758ca40ad7343b04e7e29bfe0c2eb658a39445a4f779",
    "collocations.tab": "8e2da1225e4dd2cc9dba261ee231ccb134859e21b46006e7f472c5ee269af0cf",
    "ortho_context.tab": "4bbcca25ed3d3f06c02402abf8419b9f033b8adc06e7b482eca4e45f81a5dc4c",
    "sent_starters.txt": "f3f8535483e1dba487241b764945168123bca3209a9645e59acd1225dc76edac",
}
# the largest of them has 1.2 MB; a zip can hold what no memory holds
MAX_PUNKT_BYTES = 16 << 20
# Of all rules of NLTK 3.10.4: a release with other rules must not pass for it
RULES_SHA256 = "1059a2113d474d28cb4cd86daeb9e788f46aabc919fa088f0c164a10f5841f07"

# As NLTK writes them inside its patterns
CURLY = r"\u2018\u2019\u201c\u201d\xab\xbb"
OLD_APOSTROPHE = (re.compile(r"(?i)(')(?!re|ve|ll|m|t|s|d|n)(\w)\b"), r"\1 \2")
PADDED_PAIR = r" \1 \2 "
# What a sentence holds wherever a rule matches, in the order of the rules: one of these characters,
# or this part of a contraction in lower case. Most sentences hold little of it, and a rule that
# cannot match is not tried. Where an earlier rule may have put a quote for another, both are named
NEEDED_CHARS = (
    "«“‘„`", '"', '"`', "\"'", "'", ".", ":,", ":,", ".", ";@#$%&", "\u2012\u2013\u2014\u2015",
    ".", "?!", "'", "*", "[](){}<>", "-",
)  # fmt: skip
NEEDED_CHARS_AFTER = ("»”’", "'", '"', "", "\"'", "\"'")
NEEDED_PARTS = ("cannot", "d'ye", "mme", "nna", "otta", "mme", "more'n", "nna", "'t", "'t")


@dataclass(frozen=True, slots=True)
class Rule:
    """A substitution, and what a sentence in lower case holds wherever it matches.

    Letters of `part` are matched by themselves and their capitals alone: no i, k or s, for which
    `re` also takes others when it ignores case.
    """

    pattern: re.Pattern[str]
    replacement: str
    chars: frozenset[str] = frozenset()
    part: str = ""


def nltk_tokens(text: str, release: Release) -> list[str]:
    """The tokens of `nltk.word_tokenize(text)` under the given release (English, `punkt_tab`).

    Release 3.10.4 differs from 3.9.1 in three rules, which change counts by up to 3 % on prose:

    - dashes: U+2012 to U+2015 are tokens of their own; before, `word—word` was one token;
    - apostrophes: one that starts a word is split off whatever the word's length (`'old` is two
      tokens); before, only from a single letter, and that inside a word too;
    - sentence ends: curly quotes and guillemets close a sentence as straight quotes do; before,
      a full stop directly before one did not end the sentence, and stayed glued to its word.

    Patterns run in Python's `re` (as in 3.9.1), not in the engine with a time limit that 3.10 uses:
    no token then depends on the speed of the machine. 21,500 texts, most of them random, came out
    as from the releases themselves, but for texts with the control characters U+001C to U+001F,
    which are white space to `re` alone. Raises UsageError without NLTK or with one whose rules are
    others, DataError when the sentence model cannot be had.
    """
    split_sentences, before, after = _load(release)
    return [
        token
        for sentence in split_sentences(text)
        for token in _apply(after, f" {_apply(before, sentence)} ").split()
    ]


def nltk_sentences(text: str, release: Release) -> Sequence[str]:
    """The sentences that `nltk_tokens` cuts into words; raises what it raises."""
    return _load(release)[0](text)


def _apply(rules: Iterable[Rule], text: str) -> str:
    low = text.lower()
    seen = set(low)
    for rule in rules:
        if rule.part in low and not (rule.chars and rule.chars.isdisjoint(seen)):
            text = rule.pattern.sub(rule.replacement, text)
    return text


@cache
def _load(
    release: Release,
) -> tuple[Callable[[str], Sequence[str]], tuple[Rule, ...], tuple[Rule, ...]]:
    """The sentence splitter, and the word rules before and after a sentence is padded."""
    try:
        from nltk.tokenize import destructive, punkt
    except ImportError as error:
        raise UsageError(
            "Counting words as published needs NLTK. Try: pip install 'r2w-eval[text]'"
        ) from error
    words = destructive.NLTKWordTokenizer
    first, then = _word_rules(words)
    language = punkt.PunktLanguageVars
    _refuse_other_rules([*first, *then], language)
    if release == "3.9.1":
        first[len(words.STARTING_QUOTES) - 1] = OLD_APOSTROPHE
    needs = [*((chars, "") for chars in NEEDED_CHARS_AFTER), *(("", part) for part in NEEDED_PARTS)]
    before = _with_needs(first, [(chars, "") for chars in NEEDED_CHARS])
    after = _with_needs(then, needs)
    if release == "3.9.1":
        before = [rule for rule in before if r"\u2012" not in rule.pattern.pattern]
    splitter = punkt.PunktSentenceTokenizer(
        lang_vars=_language(language, release), token_cls=_token(punkt.PunktToken)
    )
    splitter._params = _parameters(punkt.PunktParameters(), load_punkt())
    return splitter.tokenize, tuple(before), tuple(after)


def _word_rules(tokenizer: Any) -> tuple[list[Substitution], list[Substitution]]:
    """NLTK's substitutions in its order, before and after a sentence is padded with blanks:
    `NLTKWordTokenizer.tokenize`.
    """
    before = [
        *tokenizer.STARTING_QUOTES,
        *tokenizer.PUNCTUATION,
        tokenizer.PARENS_BRACKETS,
        tokenizer.DOUBLE_DASHES,
    ]
    contractions = [*tokenizer.CONTRACTIONS2, *tokenizer.CONTRACTIONS3]
    after = [*tokenizer.ENDING_QUOTES, *((pattern, PADDED_PAIR) for pattern in contractions)]
    return [(_plain(p), r) for p, r in before], [(_plain(p), r) for p, r in after]


def _with_needs(rules: Iterable[Substitution], needs: Iterable[tuple[str, str]]) -> list[Rule]:
    return [
        Rule(pattern, replacement, frozenset(chars), part)
        for (pattern, replacement), (chars, part) in zip(rules, needs, strict=True)
    ]


def _plain(pattern: Any) -> re.Pattern[str]:
    """The same pattern for Python's own engine."""
    return re.compile(pattern.pattern, pattern.flags & (re.IGNORECASE | re.MULTILINE | re.VERBOSE))


def _refuse_other_rules(rules: Sequence[Substitution], language: Any) -> None:
    sources = [f"{pattern.pattern}\t{replacement}" for pattern, replacement in rules]
    sources.append(language.re_boundary_realignment.pattern)
    # the order of the last characters in the set follows the process's hash seed
    sources.append("".join(sorted(language()._re_non_word_chars)))
    if text_hash("\n".join(sources)) != RULES_SHA256:
        from nltk import __version__

        raise UsageError(
            f"NLTK {__version__} cuts words by other rules than 3.10.4, which published counts "
            f"need. Try: pip install nltk==3.10.4"
        )


def _language(base: Any, release: Release) -> Any:
    """Punkt's variables, their patterns compiled for Python's engine."""
    closing, non_word = base.re_boundary_realignment.pattern, base()._re_non_word_chars
    if release == "3.9.1":
        closing, non_word = closing.replace(CURLY, ""), non_word.replace(CURLY, "")
    names = {
        "re_boundary_realignment": re.compile(closing, re.MULTILINE),
        "_re_non_word_chars": non_word,
    }
    language = type("PunktLanguage", (base,), names)()
    language._re_period_context = _plain(language.period_context_re())
    language._re_word_tokenizer = _plain(language._word_tokenizer_re())
    return language


def _token(base: Any) -> Any:
    """Punkt's token, its patterns compiled for Python's engine."""
    names = ("_RE_ELLIPSIS", "_RE_NUMERIC", "_RE_INITIAL", "_RE_ALPHA")
    plain = {name: _plain(getattr(base, name)) for name in names}
    return type("PunktToken", (base,), {"__slots__": (), **plain})


def _parameters(parameters: Any, model: Mapping[str, Sequence[str]]) -> Any:
    """Fill NLTK's parameters from the lines of the model's files."""
    parameters.abbrev_types = set(model["abbrev_types.txt"])
    parameters.sent_starters = set(model["sent_starters.txt"])
    parameters.collocations = {tuple(line.split("\t")) for line in model["collocations.tab"]}
    for line in model["ortho_context.tab"]:
        word, context = line.split("\t")
        parameters.ortho_context[word] = int(context)
    return parameters


def load_punkt() -> Mapping[str, Sequence[str]]:
    """The English sentence model, as lines by file: `R2W_PUNKT_TAB`, the cache, a wheel, or NLTK's
    own address. Raises DataError.
    """
    if given := os.environ.get("R2W_PUNKT_TAB"):
        return _read_model(Path(given))
    target = cache_dir() / "nltk" / "punkt_tab.zip"
    if not target.exists():
        _fetch_punkt(target)
    return _read_model(target)


def _fetch_punkt(target: Path) -> None:
    try:
        return extract_member(PUNKT_WHEEL, PUNKT_MEMBER, target, _read_model)
    except DataError as error:
        no_wheel = error
    try:
        download_checked(PUNKT_URL, target, _read_model)
    except DataError as error:
        raise DataError(
            f"The sentence model punkt_tab is not here. {no_wheel}. {PUNKT_URL}: {error}. Try: "
            f"get that file by other means and set R2W_PUNKT_TAB to it"
        ) from error


def _read_model(path: Path) -> Mapping[str, Sequence[str]]:
    """The four checked files of a `punkt_tab.zip`. Raises DataError."""
    model = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, sha256 in PUNKT_FILES.items():
                with archive.open(f"punkt_tab/english/{name}") as member:
                    content = member.read(MAX_PUNKT_BYTES)
                text = content.decode("utf-8")
                if text_hash(text) != sha256:
                    raise DataError(
                        f"{path}: {name} has sha256 {text_hash(text)}, the pinned one is {sha256}. "
                        f"Remove the file and run the same command again"
                    )
                model[name] = text.removesuffix("\n").split("\n")
    except (OSError, zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not NLTK's punkt_tab.zip with English ({error}). Expected the file of "
            f"{PUNKT_URL}. Remove it, or set R2W_PUNKT_TAB to that file"
        ) from error
    return model
