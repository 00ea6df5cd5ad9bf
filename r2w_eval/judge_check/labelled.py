"""Texts that people rated or compared, read for checking judges; nothing of them is bundled.

One `SetSpec` a set: its file (pinned by SHA-256), language, the scale people used, and a pure
function from a record to a `LabelledItem`. Found in `--labels`, `R2W_REWARD_DATA`, or the folder
`reward_data` beside the benchmark data (specification: harness A8).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from r2w_eval.errors import DataError, UnknownName
from r2w_eval.hashing import file_hash, text_hash
from r2w_eval.store import iter_jsonl

COMMAND = "r2w-eval judge-check --labels DIR"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One answer. `ratings` are those of single people (None: did not rate); the first counts."""

    id: str
    text: str
    system: str = ""
    ratings: tuple[float | None, ...] = ()

    @property
    def rating(self) -> float | None:
        """What the set publishes as the human score."""
        return self.ratings[0] if self.ratings else None


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """People's preference between two texts of an item: positive = first better, 0 = tie."""

    first: str
    second: str
    human: float


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """One request with its answers. Items with the same request share a `cluster`."""

    id: str
    prompt: str
    texts: tuple[LabelledText, ...]
    pairs: tuple[LabelledPair, ...]
    part: str = ""

    @property
    def cluster(self) -> str:
        """Intervals resample whole requests."""
        return text_hash(self.prompt)[:12]

    def text(self, identity: str) -> LabelledText:
        """The text with this id."""
        return next(text for text in self.texts if text.id == identity)


@dataclass(frozen=True, slots=True)
class SetSpec:
    """A set and how to read it. `scale` is None where people only compared."""

    name: str
    file: str
    sha256: str
    language: str
    licence: str
    read: Callable[[Mapping[str, Any], str], LabelledItem | None]
    scale: tuple[float, float] | None = None
    note: str = ""

    @property
    def kind(self) -> str:
        """`ratings` or `pairs`."""
        return "ratings" if self.scale else "pairs"


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """A set in memory, limited as asked."""

    spec: SetSpec
    items: tuple[LabelledItem, ...]


def pair_item(key: str, prompt: str, texts: tuple[str, str], human: float) -> LabelledItem:
    """An item of two compared texts."""
    first, second = (LabelledText(str(i), text) for i, text in enumerate(texts, 1))
    return LabelledItem(key, prompt, (first, second), (LabelledPair("1", "2", human),))


def rated_item(
    key: str, prompt: str, texts: Iterable[LabelledText], least_gap: float
) -> LabelledItem:
    """An item of rated texts; pairs are all whose ratings differ by at least `least_gap`.

    >>> texts = [LabelledText("a", "x", ratings=(3,)), LabelledText("b", "y", ratings=(1,))]
    >>> rated_item("i", "p", texts, 2).pairs
    (LabelledPair(first='a', second='b', human=2),)
    """
    kept = tuple(texts)
    pairs = tuple(
        LabelledPair(a.id, b.id, a.rating - b.rating)
        for a, b in combinations(kept, 2)
        if a.rating is not None and b.rating is not None and abs(a.rating - b.rating) >= least_gap
    )
    return LabelledItem(key, prompt, kept, pairs)


def _autoj(record: Mapping[str, Any], key: str) -> LabelledItem:
    texts = (record["response_1"], record["response_2"])
    human = {0: 1.0, 1: -1.0, 2: 0.0}[record["label"]]
    return replace(pair_item(record["id"], record["prompt"], texts, human), part=record["scenario"])


def _llmbar(record: Mapping[str, Any], key: str) -> LabelledItem:
    texts = (record["output_1"], record["output_2"])
    human = {1: 1.0, 2: -1.0}[record["label"]]
    return replace(pair_item(key, record["input"], texts, human), part=record["set"])


def _nextchapter(record: Mapping[str, Any], key: str) -> LabelledItem:
    texts = (
        LabelledText(
            made["model"],
            made["story"],
            made["model"],
            (round(sum(made["scores"].values()) / len(made["scores"]), 4),),
        )
        for made in record["generations"]
    )
    prompt = f"Continue this into a short story:\n{record['condition']}"
    return replace(rated_item(key, prompt, texts, 0.5), part=record["set"])


def _wpb(record: Mapping[str, Any], key: str) -> LabelledItem:
    texts = []
    for made in record["responses"]:
        by_rater = {rating["file"]: rating["score"] for rating in made["human_ratings"]}
        ratings = (by_rater.get("final"), by_rater.get("other"))
        texts.append(LabelledText(made["model"], made["text"], made["model"], ratings))
    return replace(rated_item(record["prompt_id"], record["prompt"], texts, 2), part=record["tag"])


def _lamp(record: Mapping[str, Any], key: str) -> LabelledItem | None:
    if record["sample_type"] != "pairwise":
        return None
    texts = (record["paragraph1"], record["paragraph2"])
    human = {"1": 1.0, "2": -1.0}[record["reference_preference"]]
    # the set has no requests: each pair is two states of one paragraph, and a cluster of its own
    prompt = f"Write one paragraph of {record['type'].lower()} ({record['original_id']}, {key})."
    return replace(pair_item(key, prompt, texts, human), part=record["type"])


def _storyer(record: Mapping[str, Any], key: str) -> LabelledItem:
    texts = (record["higher_upvoted"], record["lower_upvoted"])
    # the file always lists the winner first; half of the pairs are turned, by their own hash
    if int(text_hash(texts[0] + texts[1])[0], 16) % 2:
        return pair_item(key, record["prompt"], (texts[1], texts[0]), -1.0)
    return pair_item(key, record["prompt"], texts, 1.0)


SETS: Mapping[str, SetSpec] = {
    spec.name: spec
    for spec in (
        SetSpec(
            "autoj_writing_dev",
            "autoj_writing_dev/pairs.jsonl",
            "0edfe295e5a57ab61be6c4b43e8f2bb2c8ccc69c40d3c407629f96ce49158326",
            "en",
            "none stated: research use",
            _autoj,
        ),
        SetSpec(
            "wpb_zh_dev",
            "wpb_zh_dev/prompts_with_rated_responses.jsonl",
            "d4c3e5d599a57d16477436fd510d6f07d1d471b502988053d24e0f515f29e747",
            "zh",
            "ODC-BY",
            _wpb,
            (0.0, 3.0),
            "raters differ between writers: pairs count from a gap of 2 points on",
        ),
        SetSpec(
            "nextchapter_crowd",
            "nextchapter_crowd/rated_stories.jsonl",
            "bce83c7c4a22b9771da45608fd2cf209443008cf2edc2fb14a0df2c6160a9f9e",
            "en",
            "none stated: research use",
            _nextchapter,
            (1.0, 5.0),
            "mean of five crowd aspects; pairs count from a gap of .5 on",
        ),
        SetSpec(
            "lamp_val_pairs",
            "lamp_train/pairs_and_scores_val.jsonl",
            "254c576d28c70d4487433095a363dde79b6be91e80b7ccad8c97b93049e1c82f",
            "en",
            "BSD-3-Clause",
            _lamp,
            note="a paragraph before and after a writer's edit; the request is ours",
        ),
        SetSpec(
            "storyer_upvotes",
            "storyer_small/upvote_pairs.jsonl",
            "ba405bb116aa4a5341c1614417cef82b64f38cf32e81b18eb884cab6d01244d8",
            "en",
            "none stated: research use",
            _storyer,
            note="readers' votes, not ratings of the two texts side by side",
        ),
        SetSpec(
            "llmbar_public",
            "llmbar_public/pairs.jsonl",
            "f46aede499b9723407e3b2f174b67fa67343283f5ebe956f04f44be168d9ea9f",
            "en",
            "MIT",
            _llmbar,
            note="which output follows the instruction: a sanity check, not writing quality",
        ),
    )
}


def choose_sets(names: str) -> list[SetSpec]:
    """Sets by comma-separated names, all for "". Raises UnknownName."""
    wanted = tuple(dict.fromkeys(filter(None, (name.strip() for name in names.split(",")))))
    for name in wanted:
        if name not in SETS:
            raise UnknownName("--sets", name, "labelled set", SETS, "r2w-eval judge-check --help")
    return [SETS[name] for name in wanted] or list(SETS.values())


def labels_root(given: str | None, data_dir: str | None) -> Path:
    """`--labels`, else `R2W_REWARD_DATA`, else `reward_data` beside the benchmark data."""
    if chosen := given or os.environ.get("R2W_REWARD_DATA"):
        return Path(chosen)
    data = data_dir or os.environ.get("R2W_DATA")
    return (Path(data).parent if data else Path()) / "reward_data"


@dataclass(frozen=True, slots=True)
class Part:
    """How much of a set is read: items, answers an item, characters of prompt and answer."""

    items: int | None = None
    texts: int | None = None
    chars: int | None = None

    def of(self, items: Iterable[LabelledItem]) -> Iterator[LabelledItem]:
        """Evenly spaced items, and answers of each, among those that are short enough."""
        short = list(items) if self.chars is None else _short_items(items, self.chars)
        for item in spread(short, self.items):
            yield keep_texts(item, spread(item.texts, self.texts))


def load_set(spec: SetSpec, root: Path, part: Part = Part()) -> LabelledSet:
    """Read a part of one set. Raises DataError when it is missing, altered or not readable, or
    when nothing in it is short enough.
    """
    path = root / spec.file
    if not path.is_file():
        raise DataError(
            f"{path}: the labelled set {spec.name} is not there. Name the folder that holds "
            f"{spec.file}: {COMMAND}, or set R2W_REWARD_DATA; other sets: --sets NAME,NAME"
        )
    if (found := file_hash(path)) != spec.sha256:
        raise DataError(
            f"{path}: altered. Its SHA-256 is {found}, expected {spec.sha256}. Restore the file, "
            f"or leave the set out: --sets NAME,NAME"
        )
    read = (_read_item(spec, record, f"{n:04}") for n, record in enumerate(iter_jsonl(path)))
    items = tuple(part.of(item for item in read if item is not None))
    if not items:
        raise DataError(
            f"{spec.name}: no item has two answers within {part.chars} characters, the prompt "
            f"counted. Allow more with --max-chars, or leave the set out: --sets NAME,NAME"
        )
    return LabelledSet(spec, items)


def _read_item(spec: SetSpec, record: Mapping[str, Any], key: str) -> LabelledItem | None:
    try:
        return spec.read(record, key)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{spec.file}, record {key}: not such a record ({type(error).__name__}: {error})"
        ) from error


def spread(values: Sequence[T], n: int | None) -> list[T]:
    """`n` of the values, evenly spaced, so that a small part still holds every region of a file.

    >>> spread("abcdefgh", 3), spread("ab", 5)
    (['a', 'c', 'f'], ['a', 'b'])
    """
    if n is None or n >= len(values):
        return list(values)
    return [values[i * len(values) // n] for i in range(n)]


def _short_items(items: Iterable[LabelledItem], n_chars: int) -> list[LabelledItem]:
    """Items with their answers of at most `n_chars`, prompt counted, where two or more remain."""
    short = (
        keep_texts(item, [t for t in item.texts if len(item.prompt) + len(t.text) <= n_chars])
        for item in items
    )
    return [item for item in short if len(item.texts) >= 2]


def keep_texts(item: LabelledItem, texts: Sequence[LabelledText]) -> LabelledItem:
    """The item with these of its answers, and the pairs among them."""
    kept = {text.id for text in texts}
    pairs = tuple(pair for pair in item.pairs if {pair.first, pair.second} <= kept)
    return replace(item, texts=tuple(texts), pairs=pairs)
