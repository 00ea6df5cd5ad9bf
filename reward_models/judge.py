"""`judge:MODEL`: an LLM judge as a scorer of items. MODEL is what --judge takes.

For a reflection the judge answers four diagnostics (does the weakness exist, was the advice
followed, did it help where intended, was the rest kept) and gives one mark from 1 to 10 in the same
reply (the form of TAISCORE; specification: r2write.md section 6.2). For a piece of writing it gives
the mark of `r2w-eval reflect`. Values are (mark - 5.5) / 4.5, in [-1, 1]; the marks are the parts.

Judged texts may try to instruct the judge. Every question therefore fences its texts with a marker
made of their own hash, which they cannot contain.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from r2w_eval.reward_models.items import Item, ItemScore, ReflectionItem, failed, unscorable
from r2w_eval.reward_models.language.words import is_cjk

from r2w_eval.config import RunConfig
from r2w_eval.errors import UnknownName
from r2w_eval.hashing import text_hash
from r2w_eval.judge.parsing import check_number, last_object, read_number_verdict
from r2w_eval.judge.scorers import ScoreItem
from r2w_eval.models.cache import ReplyCache
from r2w_eval.models.names import KINDS, NAMED_SCORERS, SMOKE_TEST_JUDGE
from r2w_eval.paths import cache_path
from r2w_eval.reflection.effects import score_items
from r2w_eval.run.patient import Background, Patience, PatientJudge
from r2w_eval.run.roles import model_options
from r2w_eval.template import Template, fence_mark, load_prompt
from r2w_eval.types import Decoding, JudgeRequest, JudgeStatus, Message, Score

LOWEST, HIGHEST = 1.0, 10.0
DIAGNOSTICS = ("validity", "adherence", "targeted_gain", "faithfulness")
DECODING = Decoding(temperature=0.0, max_tokens=1024)
NOTHING = {"en": "(nothing)", "zh": "（无）"}
WRITING = ("reflect_system", "reflect_user")


def to_value(mark: float) -> float:
    """The value in [-1, 1] of a mark from 1 to 10.

    >>> to_value(1), to_value(5.5), to_value(10)
    (-1.0, 0.0, 1.0)
    """
    return (2 * mark - LOWEST - HIGHEST) / (HIGHEST - LOWEST)


def to_mark(value: float) -> float:
    """The mark from 1 to 10 that a value in [-1, 1] corresponds to.

    >>> to_mark(to_value(7.0))
    7.0
    """
    return (LOWEST + HIGHEST + value * (HIGHEST - LOWEST)) / 2


def load_wording(language: str) -> Template:
    """The prompt template for reflections, in English or Chinese."""
    return load_prompt(f"reflection_{language}", "r2w_eval.reward_models")


def ask_about(item: ReflectionItem) -> ScoreItem:
    """The question about one reflection, in the language of its draft."""
    language = "zh" if is_cjk(item.draft) else "en"
    nothing = NOTHING[language]
    texts = {
        "prompt": item.prompt or nothing,
        "draft": item.draft,
        "earlier": "\n\n".join(f"{n}. {one}" for n, one in enumerate(item.earlier, 1)) or nothing,
        "reflection": item.reflection,
        "revision": nothing if item.revision is None else item.revision,
    }
    mark = fence_mark(*texts.values())
    text = load_wording(language).fill(mark=mark, nothing=nothing, **texts)
    request = JudgeRequest("reflection", (Message("user", text),))
    asked = DIAGNOSTICS if item.revision is not None else DIAGNOSTICS[:1]
    return ScoreItem(request, DECODING, functools.partial(read_diagnosis, asked))


def read_diagnosis(asked: Sequence[str], request: JudgeRequest, reply: str) -> Score:
    """The mark in the reply's last JSON object with a score; `parts` are its diagnostics.

    A reply that omits one of the diagnostics `asked` for gets no value.

    >>> read_diagnosis(["validity"], None, '{"validity": 8, "score": 7}').value
    7.0
    >>> str(read_diagnosis(DIAGNOSTICS, None, '{"validity": 8, "score": 7}').status)
    'criteria_mismatch'
    """
    score = read_number_verdict(reply, "score", LOWEST, HIGHEST)
    found = last_object(reply, "score")
    if score.value is None or found is None:
        return score
    if lacking := [name for name in asked if found.get(name) is None]:
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, f"no {', '.join(lacking)}")
    marks = {name: check_number(found[name], name, LOWEST, HIGHEST) for name in asked}
    if bad := next((mark for mark in marks.values() if mark.value is None), None):
        return bad
    return Score(score.value, parts={name: mark.value for name, mark in marks.items()})


def _question(item: Item) -> ScoreItem:
    if isinstance(item, ReflectionItem):
        return ask_about(item)
    (question,) = score_items([(item.prompt, item.response)])
    return question


def _as_item_score(item: Item, score: Score) -> ItemScore:
    if score.value is None:
        return failed(item.id, score.status, score.reason)
    marks = {name: score.parts[name] for name in DIAGNOSTICS if name in score.parts}
    return ItemScore(item.id, to_value(score.value), {"score": score.value, **marks})


class ItemJudge:
    """A chat judge that scores items. Thread-safe; a silent judge is waited for.

    `close()` releases the connections; this also happens when the object is garbage collected.
    """

    def __init__(
        self, judge: PatientJudge, background: Background, cache: ReplyCache | None = None
    ) -> None:
        """Opens the judge. Raises UsageError, EndpointDown."""
        self._judge = judge
        self._background = background
        self.close = weakref.finalize(self, _give_back, judge, background, cache)
        self._chat = background.submit(judge.open()).result()
        own = [load_wording(language).id for language in NOTHING]
        self._wordings = own + [load_prompt(name).id for name in WRITING]

    @property
    def id(self) -> str:
        """The model's name and a hash of the prompt templates."""
        return f"judge:{self._chat.id}@{text_hash(' '.join(self._wordings))[:12]}"

    def describe(self) -> Mapping[str, Any]:
        """Prompt templates, decoding, range, and the model's description."""
        return {
            "wordings": self._wordings,
            "decoding": DECODING.sent(),
            "range": [-1, 1],
            **self._chat.describe(),
        }

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """One score per item, in order; items that differ only in their id are judged once.

        Raises EndpointDown if the endpoint refuses all calls.
        """
        problems = {i: why for i, item in enumerate(items) if (why := unscorable(item))}
        good = {i: replace(item, id="") for i, item in enumerate(items) if i not in problems}
        distinct = list(dict.fromkeys(good.values()))
        asked = self._judge.score([_question(item) for item in distinct])
        verdicts = dict(zip(distinct, self._background.submit(asked).result(), strict=True))
        return [
            failed(item.id, *problems[i])
            if i in problems
            else _as_item_score(item, verdicts[good[i]])
            for i, item in enumerate(items)
        ]


def _give_back(judge: PatientJudge, background: Background, cache: ReplyCache | None) -> None:
    async def close() -> None:
        await judge.close()
        if cache is not None:
            cache.__exit__()

    background.finish(close())


def open_item_judge(model: str, patience_s: float | None = None) -> ItemJudge:
    """The judge that `model` names, with the reply cache. Raises UsageError, EndpointDown."""
    if model == SMOKE_TEST_JUDGE or model in NAMED_SCORERS:
        # these compute numbers from a model or a text, and write no reply
        known = [kind for kind in KINDS if kind != SMOKE_TEST_JUDGE and kind not in NAMED_SCORERS]
        raise UnknownName("--scorer judge:", model, "model", known, "--scorer judge:smollm2")
    background = Background()
    cache = background.submit(_open_cache()).result()
    patience = Patience() if patience_s is None else Patience(patience_s)
    judge = PatientJudge(model, model_options(RunConfig(), cache), patience)
    return ItemJudge(judge, background, cache)


async def _open_cache() -> ReplyCache:
    """Open the cache in the judge's thread: SQLite objects belong to the thread that made them."""
    return ReplyCache(cache_path())
