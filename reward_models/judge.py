"""`judge:MODEL`: an LLM judge as a scorer of items. MODEL is what --judge takes.

A reflection: four diagnostics (is the weakness there, was the advice followed, did it help where it
was meant to, was the rest kept), and then one mark from 1 to 10 in the same reply (the form of
TAISCORE; specification: r2write.md section 6.2). A piece of writing: the mark of `r2w-eval
reflect`. Both as (mark - 5.5) / 4.5, so in [-1, 1]; the marks themselves are the parts.

What is judged may speak to the judge. Every question therefore fences its texts with a mark made of
their own hash, which no text can hold.
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
    """A mark from 1 to 10 on [-1, 1].

    >>> to_value(1), to_value(5.5), to_value(10)
    (-1.0, 0.0, 1.0)
    """
    return (2 * mark - LOWEST - HIGHEST) / (HIGHEST - LOWEST)


def to_mark(value: float) -> float:
    """The mark that a value in [-1, 1] stands for: what one judge point is for any scorer.

    >>> to_mark(to_value(7.0))
    7.0
    """
    return (LOWEST + HIGHEST + value * (HIGHEST - LOWEST)) / 2


def load_wording(language: str) -> Template:
    """The question about a reflection, in English or Chinese."""
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
    """The mark of the last JSON object with a score; `parts` are its diagnostics.

    A judge that leaves out one of those `asked` has not looked: its mark does not count.

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
    """A chat judge that scores items; asked from any thread, and waited for while it is silent.

    `close()` gives back the connections; so does the end of this object, or of the program.
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
        """The model's name and the hash of what it is asked."""
        return f"judge:{self._chat.id}@{text_hash(' '.join(self._wordings))[:12]}"

    def describe(self) -> Mapping[str, Any]:
        """Wordings, decoding and the model's own facts."""
        return {
            "wordings": self._wordings,
            "decoding": DECODING.sent(),
            "range": [-1, 1],
            **self._chat.describe(),
        }

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """One score per item, in order; items that differ in their id alone are asked about once.

        Raises EndpointDown when the endpoint refuses all work.
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
    """The judge that `model` names, with the reply cache: what was asked once is not paid again.

    Raises UsageError, EndpointDown.
    """
    if model == SMOKE_TEST_JUDGE or model in NAMED_SCORERS:
        # these read numbers off a model or a text, and write no reply
        known = [kind for kind in KINDS if kind != SMOKE_TEST_JUDGE and kind not in NAMED_SCORERS]
        raise UnknownName("--scorer judge:", model, "model", known, "--scorer judge:smollm2")
    background = Background()
    cache = background.submit(_open_cache()).result()
    patience = Patience() if patience_s is None else Patience(patience_s)
    judge = PatientJudge(model, model_options(RunConfig(), cache), patience)
    return ItemJudge(judge, background, cache)


async def _open_cache() -> ReplyCache:
    """Opened in the judge's own thread: SQLite wants to be asked where it was opened."""
    return ReplyCache(cache_path())
