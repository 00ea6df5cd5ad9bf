"""`r2w-eval judge-check`: how far can this judge be trusted? One evaluator card for each judge.

Labelled texts are judged one by one and, by chat judges, in pairs and both orders; null answers go
through the same prompt. Nothing is generated. All verdicts lie in a folder and are never asked for
twice (specification: harness section 10, A8).
"""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import r2w_eval
from r2w_eval.comparison.pairwise import own_form
from r2w_eval.config import RunConfig, override_decoding
from r2w_eval.errors import UsageError
from r2w_eval.hashing import content_hash, to_plain
from r2w_eval.judge.own_scorer import stated_range
from r2w_eval.judge.scorers import ExpectedScoreJudge, Scorer, TextJudge
from r2w_eval.judge_check.behaviour import behaviour_figures
from r2w_eval.judge_check.card import Consumption, EvaluatorCard, Signal
from r2w_eval.judge_check.ensemble import (
    CheckedJudge,
    add_consumption,
    combine_check,
    plan_combination,
)
from r2w_eval.judge_check.figures import Readings, language_figures, null_figures, set_figures
from r2w_eval.judge_check.labelled import (
    LabelledSet,
    Part,
    choose_sets,
    labels_root,
    load_set,
    spread,
)
from r2w_eval.judge_check.markdown import card_markdown
from r2w_eval.judge_check.nulls import null_templates
from r2w_eval.judge_check.plan import BOUNDS, CheckOptions, check_templates, plan_questions
from r2w_eval.judge_check.verdict import conclude
from r2w_eval.models.cost import Price, load_prices
from r2w_eval.paths import folder_name
from r2w_eval.records.plan import Judging, Progress
from r2w_eval.results.ensembles import EnsembleSpec
from r2w_eval.run.manifest import claim_folder
from r2w_eval.run.opening import ModelPool, is_smoke_test
from r2w_eval.run.questions import Question, Questioner
from r2w_eval.run.roles import model_options, open_cache, open_judging
from r2w_eval.store import RunFolder, write_atomically, write_json
from r2w_eval.types import Decoding, Judgement

DECODING = Decoding(max_tokens=512, temperature=0.0)


@dataclass(frozen=True)
class CheckOutcome:
    """A finished check: a card for each judge, and the files they lie in."""

    folder: Path
    cards: tuple[EvaluatorCard, ...]
    files: tuple[Path, ...]
    progress: Progress


@dataclass(frozen=True)
class Check:
    """What every judge is asked: the labelled sets, how much of them, and with which sampling."""

    config: RunConfig
    options: CheckOptions
    labelled: Sequence[LabelledSet]
    decoding: Decoding


def plan_check(config: RunConfig, options: CheckOptions) -> Check:
    """Everything that can be settled before a judge is opened. Raises UsageError, DataError."""
    labelled = load_labels(config, options)
    decoding = override_decoding(DECODING, config.judge_kwargs, config.omit, "--judge-kwargs")
    check_sampling(config, decoding)
    return Check(config, options, labelled, decoding)


def load_labels(config: RunConfig, options: CheckOptions) -> list[LabelledSet]:
    """The chosen sets, limited. Raises UnknownName, DataError."""
    root = labels_root(options.labels, config.data_dir)
    part = Part(config.limit, options.max_texts, options.max_chars)
    return [load_set(spec, root, part) for spec in choose_sets(options.sets)]


def compares_pairs(scorer: Scorer) -> bool:
    """Chat judges can be shown two texts; a scorer of single texts has no order to be swayed by."""
    return isinstance(scorer, (TextJudge, ExpectedScoreJudge))


def score_scale(scorer: Scorer) -> tuple[float, float] | None:
    """The scale of a judge's scores: ours for chat judges, else the scorer's own `range`."""
    if compares_pairs(scorer):
        return BOUNDS
    return stated_range(scorer.describe())


def checked_judge(scorer: Scorer) -> CheckedJudge:
    """What a card says of the judge itself."""
    facts = to_plain(scorer.describe())
    return CheckedJudge(scorer.id, facts, score_scale(scorer), compares_pairs(scorer))


async def check_judges(
    config: RunConfig, options: CheckOptions, watch: Callable[[Progress], Any] | None = None
) -> CheckOutcome:
    """Ask everything that is owed and write the cards. Raises R2WError subclasses.

    Cards are also written from what is there when the check is stopped; their coverage says so.
    """
    check = plan_check(config, options)
    progress = Progress()
    if watch:
        watch(progress)
    with open_cache(config) as cache:
        async with ModelPool(model_options(config, cache)) as pool:
            judging, judges = await open_judging(config, pool)
            manifest = make_check_manifest(check, judges)
            folder = RunFolder(choose_check_folder(config, judging, manifest))
            with folder.open_writers() as writers:
                manifest = claim_folder(folder, manifest)
                again = config.retry_failed
                questioner = Questioner(writers, judging, check.decoding, progress, again)
                checked = [checked_judge(scorer) for scorer in judging.scorers]
                combination = plan_combination(config, checked)
                questions = {scorer.id: _questions(check, scorer) for scorer in judging.scorers}
                prices = load_prices(config.prices)
                try:
                    await questioner.ask_all(questions)
                finally:
                    found = questioner.read_all(questions)
                    cards = [
                        make_card(judge, check, found[judge.id], manifest, prices)
                        for judge in checked
                    ]
                    if combination is not None:
                        cards.append(_combined_card(combination, check, found, cards, manifest))
                    files = tuple(write_cards(folder.path, cards))
    return CheckOutcome(folder.path, tuple(cards), files, progress)


def _combined_card(
    combination: tuple[EnsembleSpec, CheckedJudge],
    check: Check,
    found: Mapping[str, Sequence[Judgement]],
    cards: Sequence[EvaluatorCard],
    manifest: Mapping[str, Any],
) -> EvaluatorCard:
    """The card of several judges as one, from the verdicts and the `cards` of each."""
    spec, combined = combination
    verdicts = combine_check(found, spec, combined.sees_pairs)
    card = make_card(combined, check, verdicts, manifest, {})
    used = [own.consumption for own in cards if own.judge in spec.judges]
    return replace(card, consumption=add_consumption(card.consumption, used))


def _questions(check: Check, scorer: Scorer) -> list[Question]:
    n_repeats, with_pairs = check.config.repeats, compares_pairs(scorer)
    return [
        question
        for one in check.labelled
        for question in plan_questions(one, check.options, n_repeats, with_pairs)
    ]


def check_sampling(config: RunConfig, decoding: Decoding) -> None:
    """Repeats of a judge that does not sample say nothing. Raises UsageError."""
    if config.repeats > 1 and (not decoding.temperature or config.score_mode == "expected"):
        raise UsageError(
            f"--repeats {config.repeats}: the judge does not sample, so every repeat would be the "
            f"same. Add --judge-kwargs temperature=1 with a judge that writes text, or leave "
            f"--repeats out"
        )


def make_check_manifest(check: Check, judges: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """run.json of a check: `identity` is everything that changes the figures."""
    config, options = check.config, check.options
    prompts = [*(template.id for template in check_templates()), *own_form().prompt_ids]
    return {
        "schema": 1,
        "kind": "judge_check",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "r2w_eval": r2w_eval.__version__,
        "smoke_test_judge": any(is_smoke_test(spec) for spec in config.judge),
        "identity": to_plain(
            {
                "judges": judges,
                "decoding": check.decoding.sent(),
                "prompts": sorted(prompts) + null_templates(),
                "sets": {one.spec.name: one.spec.sha256 for one in check.labelled},
                "limit": config.limit,
                "max_texts": options.max_texts,
                "max_chars": options.max_chars,
                "probes": options.probes,
                "pairs": options.pairs,
                "repeats": config.repeats,
            }
        ),
    }


def choose_check_folder(config: RunConfig, judging: Judging, manifest: Mapping[str, Any]) -> Path:
    """`--out`, else a name that the same command finds again."""
    if config.out:
        return Path(config.out)
    names = "-".join(scorer.id for scorer in judging.scorers)
    digest = content_hash(manifest["identity"], 8)
    return Path("judge-checks") / folder_name(names, digest)


def read_answers(
    labelled: LabelledSet,
    options: CheckOptions,
    judgements: Sequence[Judgement],
    scale: tuple[float, float] | None,
) -> Readings:
    """One set's verdicts, by text and by pair."""
    scores: defaultdict[str, list[float | None]] = defaultdict(list)
    margins: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
    for judgement in judgements:
        if judgement.task != labelled.spec.name:
            continue
        if judgement.order:
            margins[judgement.sample_id][judgement.order] = judgement.score.value
        else:
            scores[judgement.sample_id].append(judgement.score.value)
    return Readings(labelled, scores, margins, spread(labelled.items, options.probes), scale)


def make_card(
    judge: CheckedJudge,
    check: Check,
    judgements: Sequence[Judgement],
    manifest: Mapping[str, Any],
    prices: Mapping[str, Price],
) -> EvaluatorCard:
    """All figures of one judge."""
    readings = [read_answers(one, check.options, judgements, judge.scale) for one in check.labelled]
    identity = {**manifest["identity"], "judges": {judge.id: judge.facts}}
    card = EvaluatorCard(
        judge=judge.id,
        judge_facts=judge.facts,
        judge_decoding=manifest["identity"]["decoding"],
        key=content_hash(identity, 12),
        created=manifest["created"],
        r2w_eval=manifest["r2w_eval"],
        identity=identity,
        is_smoke_test=manifest["smoke_test_judge"],
        signal=Signal.NONE,
        verdict=(),
        flags=(),
        sets=tuple(map(set_figures, readings)),
        languages=language_figures(readings),
        behaviour=behaviour_figures(readings),
        nulls=null_figures(readings),
        consumption=consumption(judgements, prices.get(judge.id)),
        models_returned=tuple(sorted({j.model_returned for j in judgements if j.model_returned})),
        notes=tuple(_notes(judge, manifest)),
    )
    return conclude(card)


def _notes(judge: CheckedJudge, manifest: Mapping[str, Any]) -> Iterator[str]:
    if not judge.sees_pairs:
        yield "a scorer of single texts: no pairs were shown, so there is no order to be swayed by"
    if judge.scale is None:
        yield "the scorer states no `range`: no leniency, no kappa, no shares at the ends"
    if manifest["identity"]["repeats"] == 1:
        yield "self-consistency was not measured: --repeats K with a judge that samples does"
    if manifest["identity"]["limit"]:
        yield f"evenly spaced parts of the sets: --limit {manifest['identity']['limit']}"
    if manifest["identity"]["max_chars"]:
        yield f"only short texts: --max-chars {manifest['identity']['max_chars']}, prompt counted"


def consumption(judgements: Sequence[Judgement], price: Price | None) -> Consumption:
    """Counts, tokens, time and money of one judge's verdicts."""
    usable = [j for j in judgements if j.score.value is not None]
    failures = Counter(str(j.score.status) for j in judgements if j.score.value is None)
    timed = [j.latency_s for j in judgements if not j.cached and j.latency_s > 0]
    tokens_in = sum(j.usage.prompt_tokens or 0 for j in judgements)
    tokens_out = sum(j.usage.completion_tokens or 0 for j in judgements)
    cost = price.cost_usd(tokens_in, tokens_out) if price and tokens_in else None
    return Consumption(
        n_verdicts=len(judgements),
        n_usable=len(usable),
        failures=dict(sorted(failures.items())),
        prompt_tokens=tokens_in,
        completion_tokens=tokens_out,
        seconds_per_1000=1000 * sum(timed) / len(timed) if timed else None,
        usd_per_1000=None if cost is None else 1000 * cost / len(judgements),
    )


def write_cards(folder: Path, cards: Sequence[EvaluatorCard]) -> Iterator[Path]:
    """`cards/<judge>-<key>.json` and `.md` in the folder of the check."""
    target = folder / "cards"
    target.mkdir(exist_ok=True)
    for card in cards:
        path = target / f"{card.file_stem}.json"
        write_json(path, card)
        write_atomically(path.with_suffix(".md"), card_markdown(card).encode())
        yield path
        yield path.with_suffix(".md")
