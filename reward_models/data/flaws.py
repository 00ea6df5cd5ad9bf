"""Generated items with planted flaws: the truth is known without annotators.

The text with the flaw is the draft, the text without it the revision. The correct reflection names
the flaw and its place. Wrong ones name another kind or place, praise, give stock advice or repeat
themselves, or come with a revision that leaves the flaw. Phrasings and texts of the test part are
never trained on.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from r2w_eval.reward_models.data.rows import POSITIVE, Row, negative, part_of
from r2w_eval.reward_models.items import ReflectionItem, WritingItem
from r2w_eval.reward_models.language.levels import load_yaml
from r2w_eval.reward_models.language.phrasing import join_quoted, phrase, say, share
from r2w_eval.reward_models.language.words import sentences

SOURCE = "generated_flaws"
LICENCE = "Apache-2.0"
LANGUAGES = ("en", "zh")
# first part of the group of a text that nothing is trained on
HELD = "held"
# kind of the wrong item that blames and cuts a sentence without a flaw
SOUND_CUT = "neg_sound_cut"
# variants of each text; the default is what the shipped weights were fitted on
FILLINGS = 40
PAST_TO_PRESENT = (
    (r"\bwas\b", "is"), (r"\bwere\b", "are"), (r"\bhad\b", "has"), (r"\bdid\b", "does"),
    (r"\bcame\b", "comes"), (r"\bwent\b", "goes"), (r"\bsaid\b", "says"), (r"\btook\b", "takes"),
    (r"\bleft\b", "leaves"), (r"\bput\b", "puts"), (r"\bsat\b", "sits"), (r"\bgave\b", "gives"),
    (r"\basked\b", "asks"), (r"\bturned\b", "turns"), (r"\blooked\b", "looks"),
    (r"\bcarried\b", "carries"), (r"\bslept\b", "sleeps"), (r"\bstood\b", "stands"),
    (r"\bread\b", "reads"), (r"\bmet\b", "meets"), (r"\btied\b", "ties"), (r"\bfelt\b", "feels"),
    (r"\bknew\b", "knows"), (r"\bsold\b", "sells"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Flawed:
    """A text before and after a flaw was planted, and the sentence that has the flaw (`place`)."""

    prompt: str
    clean: tuple[str, ...]
    flawed: tuple[str, ...]
    place: str
    category: str
    lang: str


@dataclass(frozen=True, slots=True)
class Host:
    """A clean text to plant flaws in.

    fact: index of a sentence, and a sentence that contradicts it
    must: index of the sentence that meets a demand of the prompt, and the demand
    """

    prompt: str
    sentences: tuple[str, ...]
    lang: str
    fact: tuple[int, str] | None = None
    must: tuple[int, str] | None = None


Planter = Callable[[Host, Mapping[str, Any], random.Random], Flawed | None]


def _flawed(host: Host, flawed: Sequence[str], place: str, category: str) -> Flawed:
    return Flawed(host.prompt, host.sentences, tuple(flawed), place, category, host.lang)


def _inserted(host: Host, text: str, category: str, at: int) -> Flawed:
    kept = host.sentences
    return _flawed(host, (*kept[:at], text, *kept[at:]), text, category)


def plant_cliche(host: Host, texts: Mapping[str, Any], rng: random.Random) -> Flawed:
    """Insert a cliché."""
    text = rng.choice(texts["clichés"][host.lang])
    return _inserted(host, text, "cliche", rng.randint(1, len(host.sentences)))


def plant_needless(host: Host, texts: Mapping[str, Any], rng: random.Random) -> Flawed:
    """Insert a sentence that says nothing."""
    text = rng.choice(texts["needless"][host.lang])
    return _inserted(host, text, "needless", rng.randint(1, len(host.sentences)))


def plant_unsupported(host: Host, texts: Mapping[str, Any], rng: random.Random) -> Flawed:
    """Insert an assertion without support."""
    text = rng.choice(texts["unsupported"][host.lang])
    text = text.replace("{percent}", str(rng.randint(51, 98)))
    return _inserted(host, text, "unsupported", rng.randint(1, len(host.sentences)))


def plant_repetition(host: Host, texts: Mapping[str, Any], rng: random.Random) -> Flawed:
    """Repeat an earlier sentence."""
    source = rng.randrange(len(host.sentences) - 1)
    at = rng.randint(source + 1, len(host.sentences))
    return _inserted(host, host.sentences[source], "repetition", at)


def plant_contradiction(host: Host, texts: Mapping[str, Any], rng: random.Random) -> Flawed | None:
    """Insert a sentence that contradicts an earlier one; a negation if the host has no `fact`."""
    if host.fact is not None:
        index, text = host.fact
        return _inserted(host, text, "contradiction", rng.randint(index + 1, len(host.sentences)))
    for index in rng.sample(range(len(host.sentences) - 1), len(host.sentences) - 1):
        denied = re.sub(
            r"\b(was|were|had|is|are)\b (?!not)", r"\1 not ", host.sentences[index], count=1
        )
        if denied != host.sentences[index]:
            return _inserted(
                host, denied, "contradiction", rng.randint(index + 1, len(host.sentences))
            )
    return None


def plant_tense(host: Host, texts: Mapping[str, Any], rng: random.Random) -> Flawed | None:
    """Put one sentence of a past-tense narrative into the present."""
    for index in rng.sample(range(len(host.sentences)), len(host.sentences)):
        changed = host.sentences[index]
        for past, present in PAST_TO_PRESENT:
            changed = re.sub(past, present, changed)
        if changed != host.sentences[index]:
            kept = host.sentences
            return _flawed(host, (*kept[:index], changed, *kept[index + 1 :]), changed, "tense")
    return None


def plant_order(host: Host, texts: Mapping[str, Any], rng: random.Random) -> Flawed:
    """Move one of the last sentences to the front."""
    index = rng.randint(len(host.sentences) - 2, len(host.sentences) - 1)
    moved = host.sentences[index]
    rest = [s for i, s in enumerate(host.sentences) if i != index]
    return _flawed(host, (moved, *rest), moved, "order")


def plant_missing(host: Host, texts: Mapping[str, Any], rng: random.Random) -> Flawed | None:
    """Leave out the sentence that meets a demand of the prompt."""
    if host.must is None:
        return None
    index, what = host.must
    kept = [s for i, s in enumerate(host.sentences) if i != index]
    return _flawed(host, kept, what, "constraint")


PLANTERS: tuple[Planter, ...] = (
    plant_cliche,
    plant_unsupported,
    plant_repetition,
    plant_contradiction,
    plant_tense,
    plant_order,
    plant_missing,
)


def build_flaws(
    per_text: int = FILLINGS, seed: int = 0, hosts: Sequence[tuple[str, Host]] = ()
) -> Iterator[Row]:
    """Rows from the texts of this project (`per_text` variants each) and from other clean texts.

    `hosts` are (split group, host) pairs. All variants of a text share its group.
    """
    for lang in LANGUAGES:
        yield from _own_rows(_texts()[lang], ("flaw", lang), per_text, f"{seed}")
    for number, (group, host) in enumerate(hosts):
        rng = random.Random(f"{seed}:host:{number}")
        yield from _rows(f"flaw:host:{number}", group, host, rng)


def build_needless(
    per_text: int = FILLINGS, seed: int = 0, hosts: Sequence[tuple[str, Host]] = ()
) -> Iterator[Row]:
    """Reflections on a needless sentence, about as many as `build_flaws` has of each kind.

    The words that blame it are right here and wrong in SOUND_CUT, and so tell nothing alone.
    """
    for group, host, name in _needless_hosts(per_text, seed, hosts):
        rng = random.Random(f"{seed}:{name}")
        for row in _rows(name, group, host, rng, plant_needless):
            if isinstance(row.item, ReflectionItem):
                yield row


def _needless_hosts(
    per_text: int, seed: int, hosts: Sequence[tuple[str, Host]]
) -> Iterator[tuple[str, Host, str]]:
    """Split group, clean text and a name of its own."""
    for lang in LANGUAGES:
        for number, entry in enumerate(_texts()[lang]):
            group = f"flaw:{lang}:{number}"
            for filling in range(math.ceil(per_text / len(PLANTERS))):
                name = f"{group}:needless:{filling}"
                yield group, fill(entry, lang, random.Random(f"{seed}:{name}:fill")), name
    for number, (group, host) in enumerate(hosts[:: len(PLANTERS)]):
        yield group, host, f"flaw:host:needless:{number}"


def build_held(per_text: int, seed: int) -> Iterator[Row]:
    """Rows for the validity suite, from texts and phrasings that are never trained on."""
    for lang in LANGUAGES:
        yield from _own_rows(_texts()[f"held_{lang}"], (HELD, lang), per_text, f"{seed}:{HELD}")


def _own_rows(
    entries: Sequence[Mapping[str, Any]], place: tuple[str, str], per_text: int, seed: str
) -> Iterator[Row]:
    """Rows of `per_text` variants of each entry; `place` is the groups' prefix and the language.

    Each variant has a seed of its own, so that more variants do not change the first ones.
    """
    kind, lang = place
    for number, entry in enumerate(entries):
        for filling in range(per_text):
            rng = random.Random(f"{seed}:{lang}:{number}:{filling}")
            group = f"{kind}:{lang}:{number}"
            yield from _rows(f"{group}:{filling}", group, fill(entry, lang, rng), rng)


@cache
def _texts() -> dict[str, Any]:
    return load_yaml("flaw_texts.yaml")


@cache
def _sentences_to_plant(reserved: bool) -> dict[str, Any]:
    """Sentences by kind and language; those that are `reserved` are never trained on."""
    return {
        kind: {lang: share(lines, reserved) for lang, lines in _texts()[kind].items()}
        for kind in ("clichés", "unsupported", "needless")
    }


def host_of(prompt: str, text: str, lang: str) -> Host | None:
    """A clean text to plant flaws in; None if it is too short."""
    parts = tuple(sentences(text))
    return Host(prompt, parts, lang) if len(parts) >= 4 else None


def fill(entry: Mapping[str, Any], lang: str, rng: random.Random) -> Host:
    """A text with its slots filled."""
    slots: Mapping[str, Sequence[str]] = _texts()["slots" if lang == "en" else "slots_zh"]
    chosen = {name: rng.choice(values) for name, values in slots.items()}

    def filled(text: str) -> str:
        for name, value in chosen.items():
            text = text.replace("{" + name + "}", value)
        return text[0].upper() + text[1:]

    (fact_at, fact), (must_at, must) = entry["fact"], entry["must"]
    return Host(
        filled(entry["prompt"]),
        tuple(map(filled, entry["sentences"])),
        lang,
        (fact_at, filled(fact)),
        (must_at, filled(must)),
    )


def join(parts: Sequence[str], lang: str) -> str:
    """Join sentences into a text."""
    return ("" if lang == "zh" else " ").join(parts)


def _rows(
    base: str, group: str, host: Host, rng: random.Random, planter: Planter | None = None
) -> Iterator[Row]:
    """Plant one flaw: rows of the two texts, of the correct reflection and of wrong ones."""
    reserved = part_of(group) == "test" or group.startswith(f"{HELD}:")
    found = (planter or rng.choice(PLANTERS))(host, _sentences_to_plant(reserved), rng)
    if found is None or found.flawed == found.clean:
        return
    draft, revision = join(found.flawed, found.lang), join(found.clean, found.lang)
    yield from _outcome_pair(base, group, found, draft, revision)
    item = ReflectionItem(
        f"{base}:pos", found.prompt, draft,
        phrase(found.category, found.place, found.lang, rng, reserved=reserved), revision,
    )  # fmt: skip
    positive = Row(
        item.id, SOURCE, LICENCE, group, found.lang, POSITIVE, base, item,
        {"relevance": 1.0, "constructiveness": 1.0, "efficiency": 1.0, "effect": 1.0},
        meta={"category": found.category, "span": found.place},
    )  # fmt: skip
    yield positive
    yield from _wrong(positive, found, rng, reserved)
    # a seed of its own: the rows before it are what they were without it
    yield _sound_cut(positive, found, random.Random(f"{base}:sound"), reserved)


def _sound_cut(positive: Row, found: Flawed, rng: random.Random, reserved: bool) -> Row:
    """In the clean text, one to three sentences that nothing is wrong with are blamed and cut."""
    lang, n = found.lang, rng.choice((1, 1, 2, 3))
    victims = sorted(rng.sample(found.clean, min(n, len(found.clean) - 1)), key=found.clean.index)
    # what any sentence can be blamed for is what a policy would say; labels are mild, since lower
    # ones made remarks on places without marks worthless in sets that were left out
    blame = rng.choice(("needless", rng.choice(sorted(_categories(lang)))))
    return negative(
        positive,
        SOUND_CUT,
        {"relevance": -0.3, "constructiveness": -0.1, "effect": -0.4},
        draft=join(found.clean, lang),
        reflection=phrase(blame, join_quoted(victims, lang), lang, rng, reserved=reserved),
        revision=join([s for s in found.clean if s not in victims], lang),
    )


def _outcome_pair(base: str, group: str, found: Flawed, draft: str, revision: str) -> Iterator[Row]:
    for kind, text, value in (("flawed", draft, -0.3), ("clean", revision, 0.3)):
        item = WritingItem(f"{base}:{kind}", found.prompt, text)
        yield Row(item.id, SOURCE, LICENCE, group, found.lang, kind, f"{base}:outcome", item,
                  {"outcome": value}, 0.3, {"category": found.category})  # fmt: skip


def _wrong(positive: Row, found: Flawed, rng: random.Random, reserved: bool) -> Iterator[Row]:
    lang, category, place = found.lang, found.category, found.place
    sound = [s for s in found.clean if s != place and s in found.flawed]
    other = rng.choice(sorted(_categories(lang) - {category}))
    away = {"relevance": -1.0, "constructiveness": -1.0, "effect": -1.0}

    def say_it(kind: str, span: str) -> str:
        return phrase(kind, span, lang, rng, reserved=reserved)

    yield negative(positive, "neg_category", {"relevance": -0.8}, reflection=say_it(other, place))
    # quoting a sound sentence is right for the partner of a repetition or contradiction
    yield negative(positive, "neg_span", {"relevance": -1.0, "constructiveness": -0.8},
                   reflection=say_it(category, rng.choice(sound)))  # fmt: skip
    yield negative(positive, "neg_both", away, reflection=say_it(other, rng.choice(sound)))
    yield negative(positive, "neg_praise", away, reflection=say("praise", lang, rng))
    yield negative(
        positive, "neg_generic",
        {"relevance": -0.6, "constructiveness": -0.6, "efficiency": -0.5},
        reflection=say("generic", lang, rng),
    )  # fmt: skip
    nothing = {"relevance": -1.0, "constructiveness": -1.0, "efficiency": -1.0}
    yield negative(positive, "neg_null", nothing, reflection=_nothing(found, rng))
    yield from _wrong_context(positive, found, sound, rng)


def _wrong_context(
    positive: Row, found: Flawed, sound: Sequence[str], rng: random.Random
) -> Iterator[Row]:
    """The correct reflection repeated, or with a revision that does not follow it."""
    item = positive.item
    assert isinstance(item, ReflectionItem)
    times = rng.randint(1, 4)
    yield negative(
        positive,
        "neg_repeat",
        {"efficiency": -0.4 - 0.15 * times},
        earlier=(item.reflection,) * times,
    )
    yield negative(
        positive,
        "neg_unchanged",
        {"constructiveness": -0.5, "effect": -0.7},
        revision=item.draft,
    )
    # another sentence is dropped and the flaw stays
    victim = rng.choice(sound)
    wrong_cut = join([s for s in found.flawed if s != victim], found.lang)
    wrong = {"constructiveness": -0.7, "effect": -0.9}
    yield negative(positive, "neg_wrong_edit", wrong, revision=wrong_cut)
    entry = rng.choice([e for e in _texts()[found.lang] if e["prompt"] != found.prompt])
    other = join(fill(entry, found.lang, rng).sentences, found.lang)
    lost = {"constructiveness": -1.0, "effect": -1.0}
    yield negative(positive, "neg_revision", lost, revision=other)


def _nothing(found: Flawed, rng: random.Random) -> str:
    """A reflection without content."""
    return rng.choice(
        (
            ":",
            "Thought process:",
            "Solution",
            "Score: 10",
            "...",
            "ok ok ok ok ok ok",
            found.prompt,
            "The quick answer is yes.",
            '{"score": 10, "verdict": "excellent"}',
            "Let us think step by step.",
        )
    )


def _categories(lang: str) -> set[str]:
    """The categories that a wrong reflection may name."""
    names = {"cliche", "unsupported", "repetition", "contradiction", "order", "constraint"}
    return names | {"tense"} if lang == "en" else names
