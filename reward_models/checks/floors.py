"""Trivial baselines of every labelled set, which a learned score must exceed.

    r2w-eval score --baselines            (needs the labelled sets; no model)

Definitions and published values: specification, reward model, section 6. Length is in characters
for LAMP pairs, auto-j, StoryER, LLMBar and WPB-zh, else in words; ties count one half.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from r2w_eval.reward_models.data.sources import LabelledSet

from r2w_eval.stats.agreement import Method, coefficient

CUES = re.compile(
    r"\b(?:should|please|could|need\w*|suggest\w*|recommend\w*|would|must|clarif\w*|add\w*)\b|\?",
    re.IGNORECASE,
)
Pairs = Iterable[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Floor:
    """One trivial baseline on one task, and the value that the specification gives."""

    task: str
    reading: str
    value: float
    n: int
    published: float

    @property
    def agrees(self) -> bool:
        """Whether the value is within 0.01 of the published one."""
        return abs(self.value - self.published) <= 0.01


def share(pairs: Pairs) -> tuple[float, int]:
    """Share of pairs (preferred, other) in which the first is larger; ties count one half.

    >>> share([(2.0, 1.0), (1.0, 1.0)])
    (0.75, 2)
    """
    marks = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
    return fmean(marks), len(marks)


def area(good: Sequence[float], bad: Sequence[float]) -> float:
    """Area under the ROC curve of good against bad."""
    from scipy.stats import rankdata

    ranks = rankdata([*good, *bad])[: len(good)]
    return float((ranks.sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def rank(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 if it is not defined."""
    return coefficient(np.array(first, float), np.array(second, float), Method.SPEARMAN) or 0.0


def bag_of_words(
    texts: Sequence[str], marks: Sequence[float]
) -> Callable[[Sequence[str]], list[float]]:
    """Fit a ridge regression (penalty 1) on n-grams; the fitted function of texts.

    N-grams are words, punctuation marks and pairs of them that occur in three texts or more, with
    (1 + log count) * idf in rows of unit length; the intercept is not penalised.
    """
    counts = [_grams(text) for text in texts]
    seen = Counter(gram for own in counts for gram in own)
    places = {gram: i for i, gram in enumerate(g for g, n in seen.items() if n >= 3)}
    idf = np.array([math.log((1 + len(texts)) / (1 + seen[g])) + 1 for g in places])
    design = _rows(counts, places, idf)
    middle = design.mean(0)
    centred = design - middle
    gram = centred @ centred.T + np.eye(len(texts))
    weights = centred.T @ np.linalg.solve(gram, np.array(marks) - np.mean(marks))
    return lambda given: (_rows([_grams(t) for t in given], places, idf) @ weights).tolist()


def _grams(text: str) -> Counter[str]:
    own = re.findall(r"\w+|[^\w\s]", text.lower())
    return Counter([*own, *(f"{a} {b}" for a, b in zip(own, own[1:], strict=False))])


def _rows(
    counts: Sequence[Counter[str]], places: Mapping[str, int], idf: NDArray[np.float64]
) -> NDArray[np.float64]:
    table = np.zeros((len(counts), len(places)))
    for row, own in zip(table, counts, strict=True):
        for gram, n in own.items():
            if gram in places:
                row[places[gram]] = (1 + math.log(n)) * idf[places[gram]]
        row /= np.linalg.norm(row) or 1.0
    return table


def n_words(text: str) -> float:
    """Number of words separated by white space."""
    return float(len(text.split()))


def floors(sets: Mapping[str, LabelledSet]) -> Iterator[Floor]:
    """The floors of all sets that are present."""
    for name, read in READERS.items():
        if name in sets:
            yield from read(sets[name])


def _lamp(own: LabelledSet) -> Iterator[Floor]:
    drafts = own.read("span_edits_train.jsonl")
    records = own.read("pairs_and_scores_val.jsonl")
    pairs = [_preferred_first(r) for r in records if r["sample_type"] == "pairwise"]
    scored = [r for r in records if r["sample_type"] == "reward"]
    human = [float(r["zscore"]) for r in scored]
    texts, marks = _scored_texts(drafts)
    ridge = bag_of_words(texts, marks)
    flat = ridge([t for pair in pairs for t in pair])
    yield Floor("LAMP validation pairs", "longer",
                *share((len(a), len(b)) for a, b in pairs), 0.286)  # fmt: skip
    yield Floor("LAMP validation pairs", "bag of words",
                *share(zip(flat[::2], flat[1::2], strict=True)), 0.898)  # fmt: skip
    lengths = [float(len(r["paragraph"])) for r in scored]
    yield Floor("LAMP validation scores", "length", rank(lengths, human), len(human), 0.01)
    found = ridge([r["paragraph"] for r in scored])
    yield Floor("LAMP validation scores", "bag of words", rank(found, human), len(human), 0.435)
    kinds = Counter(span["category"] for r in drafts for span in r["expert_spans"])
    most = max(kinds.values()) / kinds.total()
    yield Floor("LAMP span category", "majority", most, kinds.total(), 0.302)
    revised = [r for r in drafts if r.get("expert_revision")]
    yield Floor("LAMP revisions", "shorter than the draft",
                *share((-len(r["expert_revision"]), -len(r["paragraph"])) for r in revised),
                0.711)  # fmt: skip


def _preferred_first(record: Mapping[str, Any]) -> tuple[str, str]:
    first, second = record["paragraph1"], record["paragraph2"]
    return (first, second) if record["reference_preference"] == "1" else (second, first)


def _scored_texts(drafts: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[float]]:
    """Drafts and revisions with their mean scores."""
    texts, marks = [], []
    for record in drafts:
        for text, score in (("paragraph", "draft_score_1to10"),
                            ("expert_revision", "revision_score_1to10")):  # fmt: skip
            values = [float(v) for v in record.get(score) or ()]
            if record.get(text) and values:
                texts.append(record[text])
                marks.append(fmean(values))
    return texts, marks


def _argrewrite(own: LabelledSet) -> Iterator[Floor]:
    writers = own.read("writers.jsonl")
    drafts = [(w[f"draft{k}"], w["scores"][str(k)]) for w in writers for k in (1, 2, 3)]
    lengths, totals = [n_words(t) for t, _ in drafts], [s["mean_total"] for _, s in drafts]
    yield Floor("ArgRewrite totals", "length", rank(lengths, totals), len(drafts), 0.298)
    raters = [[sum(s[r].values()) for _, s in drafts] for r in ("rater_c", "rater_m")]
    yield Floor("ArgRewrite totals", "one rater by the other", rank(*raters), len(drafts), 0.424)
    grown = [n_words(w["draft2"]) - n_words(w["draft1"]) for w in writers]
    gains = [w["scores"]["2"]["mean_total"] - w["scores"]["1"]["mean_total"] for w in writers]
    yield Floor("ArgRewrite gain", "change of length", rank(grown, gains), len(writers), 0.264)


def _f1000rd(own: LabelledSet) -> Iterator[Floor]:
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for review in own.read("reviews.jsonl"):
        for sentence in review["sentences"]:
            texts[sentence["label"]].append(sentence["text"])
    rest = [t for label in ("Recap", "Structure", "Strength", "Other") for t in texts[label]]
    for name, other, published in (("the rest", rest, (0.835, 0.562)),
                                   ("weakness", texts["Weakness"], (0.832, 0.426))):  # fmt: skip
        for reading, measure, value in zip(("cue words", "length"), (_cues, n_words), published,
                                           strict=True):  # fmt: skip
            found = area([measure(t) for t in texts["Todo"]], [measure(t) for t in other])
            yield Floor(f"F1000RD request against {name}", reading, found,
                        len(texts["Todo"]) + len(other), value)  # fmt: skip


def _cues(text: str) -> float:
    return float(len(CUES.findall(text)))


def _cohesentia(own: LabelledSet) -> Iterator[Floor]:
    later, longer = [], []
    for story in own.read("stories.jsonl"):
        votes = Counter(int(k) for reasons in story["reasons_per_annotator"].values()
                        for k, given in reasons.items() if given)  # fmt: skip
        sentences = story["sentences"]
        if any(k >= len(sentences) for k in votes):
            continue
        marked = [k for k, n in votes.items() if n >= 2]
        for k in marked:
            for other in (j for j in range(len(sentences)) if not votes[j]):
                later.append((float(k), float(other)))
                longer.append((n_words(sentences[k]), n_words(sentences[other])))
    yield Floor("CoheSentia marked sentence", "later", *share(later), 0.775)
    yield Floor("CoheSentia marked sentence", "longer", *share(longer), 0.672)


def _autoj(own: LabelledSet) -> Iterator[Floor]:
    pairs: list[tuple[int, int]] = []
    for r in own.read("pairs.jsonl"):
        if r["label"] != 2:
            sizes = (len(r["response_1"]), len(r["response_2"]))
            pairs.append(sizes if r["label"] == 0 else sizes[::-1])
    yield Floor("auto-j writing", "longer", *share(pairs), 0.713)
    yield Floor("auto-j writing, within 20 %", "longer", *share(_near(pairs, 0.2)), 0.646)


def _near(pairs: Pairs, within: float) -> list[tuple[float, float]]:
    return [(a, b) for a, b in pairs if abs(a - b) <= within * min(a, b)]


def _wpb(own: LabelledSet) -> Iterator[Floor]:
    pairs = []
    for prompt in own.read("prompts_with_rated_responses.jsonl"):
        rated = [(len(r["text"]), float(rating["score"])) for r in prompt["responses"]
                 for rating in r["human_ratings"] if rating["file"] == "final"]  # fmt: skip
        for (a, x), (b, y) in combinations(rated, 2):
            if x != y:
                pairs.append((a, b) if x > y else (b, a))
    yield Floor("WPB-zh pairs", "longer", *share(pairs), 0.580)
    yield Floor("WPB-zh pairs, within 25 %", "longer", *share(_near(pairs, 0.25)), 0.524)


def _storyer(own: LabelledSet) -> Iterator[Floor]:
    records = own.read("upvote_pairs.jsonl")
    pairs = ((len(r["higher_upvoted"]), len(r["lower_upvoted"])) for r in records)
    yield Floor("StoryER upvotes", "longer", *share(pairs), 0.578)


def _llmbar(own: LabelledSet) -> Iterator[Floor]:
    parts: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for r in own.read("pairs.jsonl"):
        sizes = (float(len(r["output_1"])), float(len(r["output_2"])))
        parts[r["set"].split("/")[-1]].append(sizes if r["label"] == 1 else sizes[::-1])
    published = {"Natural": 0.56, "Neighbor": 0.12, "GPTInst": 0.13, "Manual": 0.17, "GPTOut": 0.45}
    for name, value in published.items():
        if name in parts:
            yield Floor(f"LLMBar {name}", "longer", *share(parts[name]), value)


def _nextchapter(own: LabelledSet) -> Iterator[Floor]:
    stories: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for r in own.read("rated_stories.jsonl"):
        for g in r["generations"]:
            stories[r["set"]].append((n_words(g["story"]), float(g["scores"]["coherence"])))
    for name, value in {"roc": -0.11, "wp": -0.17, "cnn": -0.39}.items():
        lengths, marks = zip(*stories[name], strict=True)
        yield Floor(f"NextChapter {name}, coherence", "length", rank(lengths, marks),
                    len(marks), value)  # fmt: skip


READERS: Mapping[str, Callable[[LabelledSet], Iterator[Floor]]] = {
    "lamp_train": _lamp,
    "argrewrite_train": _argrewrite,
    "f1000rd_train": _f1000rd,
    "cohesentia_train": _cohesentia,
    "autoj_writing_dev": _autoj,
    "wpb_zh_dev": _wpb,
    "storyer_small": _storyer,
    "llmbar_public": _llmbar,
    "nextchapter_crowd": _nextchapter,
}
