"""Arena-Hard v2, creative part: 250 prompts, the model against a baseline, two games a prompt.

Follows lmarena/arena-hard-auto@196f6b8 (gen_judgment.py, show_result.py): same prompt bytes, same
labels, same win rate. Upstream resamples the copied rows of one question as if they were
independent; here an interval draws whole questions, and upstream's stands beside it by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from r2w_eval.data import PromptSource, SuiteData
from r2w_eval.errors import DataError
from r2w_eval.estimates import as_headline, pooled
from r2w_eval.records.recorded import read_responses
from r2w_eval.suites import JudgingJob, ParityRules, Suite
from r2w_eval.template import Template
from r2w_eval.types import (
    Estimate,
    ItemVerdicts,
    JudgeRequest,
    JudgeStatus,
    Message,
    Mode,
    Sample,
    Scale,
    Score,
    Stratum,
)

BASELINE_FIRST, MODEL_FIRST = GAMES = ("baseline_first", "model_first")
STRONG_WEIGHT = 3
# A's result, and whether by a wide margin; the judge is offered these five labels
OFFERED = {"A>>B": (1.0, True), "A>B": (1.0, False), "A=B": (0.5, False)}
OFFERED |= {"B>A": (0.0, False), "B>>A": (0.0, True)}
ALSO_KNOWN = {"A<<B": (0.0, True), "A<B": (0.0, False), "B=A": (0.5, False)}
ALSO_KNOWN |= {"B<<A": (1.0, True), "B<A": (1.0, False)}
LABELS = {Mode.STRICT: OFFERED, Mode.PARITY: OFFERED | ALSO_KNOWN}
DOUBLE, SINGLE = (re.compile(p) for p in (r"\[\[([AB<>=]+)\]\]", r"\[([AB<>=]+)\]"))
# how judges space and escape a label: [[ A > B ]], \[\[A>B\]\]
SPACING = re.compile(r"[\s\\]+")
WHERE = (
    "The official baseline is data/arena-hard-v2.0/model_answer/gemini-2.0-flash-001.jsonl of "
    "https://github.com/lmarena/arena-hard-auto; lines of {id, response} work too; "
    "with --only-complete a file may answer only some of the prompts"
)
PROMPTS = (
    PromptSource(
        "creative_writing.system_prompt",
        "171489efbca7f19fb520e1b3c23783c76af7c723e770fe897a55f391684aa358",
        ("creative_writing.system_prompt", "text"),
        "judge_utils.py",
        "JUDGE_SETTINGS.creative_writing.system_prompt",
    ),
    PromptSource(
        "prompt_template",
        "80fb20ab2eaae6d38a19f707f3f051f0456bcb977b0086bebe15f9bd23ce45f8",
        ("prompt_template", "text"),
        "arena-hard-v2.0.yaml",
        "prompt_template",
    ),
)


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 250 creative prompts in file order, each with its baseline answer if there is one.

    Raises DataError if the file answers none of them.
    """
    questions = list(_read_questions(data))
    baseline = _read_baseline(data)
    is_other = baseline.keys().isdisjoint(question["uid"] for question in questions)
    if is_other and not data.prompts_only:
        raise DataError(
            f"--baseline {str(data.inputs['baseline'])!r}: no answer to any of the "
            f"{len(questions)} prompts. {WHERE}"
        )
    for question in questions:
        answer = baseline.get(question["uid"])
        yield Sample(
            task="arena_hard_creative",
            id=question["uid"],
            messages=(Message("user", question["prompt"]),),
            material={} if answer is None else {"baseline": answer},
            lacks="baseline" if answer is None else "",
        )


def _read_questions(data: SuiteData) -> Iterable[dict[str, str]]:
    """Lines end at `\\n` only: prompts hold U+2028."""
    extract = "question_creative_writing.jsonl"
    path = data.path(extract if data.find(extract) else "question.jsonl")
    records = (json.loads(line) for line in path.read_bytes().split(b"\n") if line)
    return (record for record in records if record["category"] == "creative_writing")


def _read_baseline(data: SuiteData) -> dict[str, str]:
    """Answers by question. Raises DataError if the file is missing or contradicts itself."""
    path = data.input("baseline", WHERE)
    answers: dict[str, str] = {}
    for answer in read_responses(path):
        if answers.setdefault(answer.sample_id, answer.text) != answer.text:
            raise DataError(
                f"--baseline {str(path)!r}: two different answers to {answer.sample_id}. "
                f"Keep one line a prompt"
            )
    return answers


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The official prompts."""
    return {source.name: data.template(source) for source in PROMPTS}


def criteria(sample: Sample) -> Sequence[str]:
    """The two games."""
    return GAMES


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """Both games: the baseline is A in the first, the model in the second."""
    system = Message("system", job.templates["creative_writing.system_prompt"].text)
    model, baseline = job.answer.text, job.sample.material["baseline"]
    requests = []
    for game, (first, second) in zip(GAMES, ((baseline, model), (model, baseline)), strict=True):
        user = job.templates["prompt_template"].fill(
            QUESTION=job.sample.messages[0].content, ANSWER_A=first, ANSWER_B=second
        )
        scale = {label: _outcome(game, wins) for label, (wins, _) in OFFERED.items()}
        requests.append(
            JudgeRequest(
                criterion=game,
                messages=(system, Message("user", user)),
                scale=Scale(lead="My final verdict is: [[", labels=scale, end="]]"),
            )
        )
    return requests


def _outcome(game: str, wins: float) -> float:
    """The model's result, given A's."""
    return wins if game == MODEL_FIRST else 1.0 - wins


def parse_strict(request: JudgeRequest, text: str) -> Score:
    """The last label in double brackets, which must be one that the prompt offers."""
    return _read_label(request, Mode.STRICT, DOUBLE.findall(SPACING.sub("", text.upper())))


def parse_parity(request: JudgeRequest, text: str) -> Score:
    """The last label in double brackets, else in single ones; upstream's ten labels.

    >>> parse_parity(JudgeRequest("model_first", ()), "so [a>b]").value
    1.0
    """
    upper = text.upper()
    return _read_label(request, Mode.PARITY, DOUBLE.findall(upper) or SINGLE.findall(upper))


def _read_label(request: JudgeRequest, mode: Mode, found: Sequence[str]) -> Score:
    if not found:
        return Score(None, JudgeStatus.PARSE_ERROR, "no label such as [[A>B]]")
    known = LABELS[mode]
    if found[-1] not in known:
        allowed = ", ".join(known)
        return Score(
            None, JudgeStatus.UNKNOWN_LABEL, f"[[{found[-1][:40]}]] is not one of {allowed}"
        )
    wins, is_strong = known[found[-1]]
    parts = {"label": found[-1], "weight": STRONG_WEIGHT if is_strong else 1}
    return Score(_outcome(request.criterion, wins), parts=parts)


@dataclass(frozen=True, slots=True)
class Game:
    """One verdict from the model's side: 1 won, 0.5 drawn, 0 lost; strong ones weigh 3."""

    outcome: float
    weight: int


def read_games(item: ItemVerdicts) -> list[Game]:
    """The item's games, upstream's order (second game first); empty unless both have a verdict."""
    games = []
    for name in (MODEL_FIRST, BASELINE_FIRST):
        valued = item.valued(name)
        if not valued:
            return []
        # at the floor a missing answer has lost by the widest margin
        games += [Game(value, s.parts.get("weight", STRONG_WEIGHT)) for s, value in valued]
    return games


def expand(games: Sequence[Game]) -> list[float]:
    """Upstream's rows: a strong verdict is three equal ones.

    >>> expand([Game(1.0, 3), Game(0.5, 1)])
    [1.0, 1.0, 1.0, 0.5]
    """
    return [game.outcome for game in games for _ in range(game.weight)]


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Win rate over copied rows (published), by weights, and with every verdict counting once."""
    played = [(item.sample_id, games) for item in items if (games := read_games(item))]
    copied = [(uid, expand(games)) for uid, games in played]
    winrate = pooled("winrate", copied, len(items))
    return [
        as_headline(winrate),
        replace(winrate, name="winrate_percent", scale=100.0, note="as upstream prints it"),
        replace(winrate, name="winrate:weighted", strata=(_weighted(played),)),
        pooled(
            "winrate:plain",
            [(uid, [g.outcome for g in games]) for uid, games in played],
            len(items),
        ),
        _as_independent_rows(copied),
    ]


def _weighted(played: Sequence[tuple[str, Sequence[Game]]]) -> Stratum:
    return Stratum(
        tuple(uid for uid, _ in played),
        tuple(sum(game.weight * game.outcome for game in games) for _, games in played),
        tuple(float(sum(game.weight for game in games)) for _, games in played),
    )


def _as_independent_rows(copied: Sequence[tuple[str, Sequence[float]]]) -> Estimate:
    """The published value with the interval of upstream's bootstrap, which draws single rows."""
    rows = [(f"{uid}/{place}", [row]) for uid, own in copied for place, row in enumerate(own)]
    note = "rows drawn one by one, as upstream does: too narrow; n counts rows"
    return pooled("winrate:copied_rows", rows, len(rows), note=note)


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_strict, Mode.PARITY: parse_parity},
    aggregate=aggregate,
    parity=ParityRules(),
    orders=dict.fromkeys(GAMES, "game"),
)
