"""The two roles of a run, writer and judge: opened from its settings, with what they share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from r2w_eval.config import RunConfig
from r2w_eval.errors import UsageError
from r2w_eval.judge.scorers import Scorer
from r2w_eval.models.cache import ReplyCache
from r2w_eval.models.chat import ChatRequest, Reply
from r2w_eval.models.cost import Budget, load_prices
from r2w_eval.models.endpoint import ClientSettings
from r2w_eval.models.replay import open_records
from r2w_eval.models.thinking import SplitText, ThinkTags, read_reply_text
from r2w_eval.paths import CACHE_FILE, cache_path
from r2w_eval.records.plan import NO_JUDGE, Judging, Writing
from r2w_eval.records.recorded import open_recorded
from r2w_eval.run.opening import ModelOptions, ModelPool, OpenModel
from r2w_eval.types import Sample


def open_cache(config: RunConfig) -> AbstractContextManager[ReplyCache | None]:
    """The records of --replay, the reply cache, or nothing under --no-cache. Raises UsageError."""
    if config.replay:
        return open_records(config.replay)
    path = Path(config.cache_dir) / CACHE_FILE if config.cache_dir else cache_path()
    return ReplyCache(path) if config.cache else nullcontext(None)


def model_options(
    config: RunConfig, cache: ReplyCache | None, budget: Budget | None = None
) -> ModelOptions:
    """What the settings say about models. Raises UsageError."""
    client = ClientSettings(
        max_connections=config.max_connections,
        fixed_concurrency=config.fixed_concurrency,
        timeout_s=config.timeout,
    )
    return ModelOptions(
        config.backend,
        config.model_args,
        client,
        cache,
        load_prices(config.prices),
        budget,
        config.replay,
    )


def think_tags(config: RunConfig) -> ThinkTags:
    """How the writer marks its thinking. Raises UsageError."""
    open_tag, _, close_tag = map(str.strip, config.think_tags.partition(","))
    if not open_tag or not close_tag:
        raise UsageError(
            f"--think-tags {config.think_tags!r}: expected OPEN,CLOSE: <think>,</think>"
        )
    return ThinkTags(open_tag, close_tag, config.think_opened)


async def open_writing(config: RunConfig, pool: ModelPool) -> Writing:
    """The writer: a model, or recorded answers. Raises UsageError when neither is named."""
    shared: dict[str, Any] = {
        "seed": None if "seed" in map(str.strip, config.omit.split(",")) else config.seed,
        "n_repeats": config.samples,
        "system_prompt": config.system_prompt,
    }
    tags = think_tags(config)
    if config.responses:
        recorded = open_recorded(Path(config.responses), config.model, config.samples)
        return Writing(
            recorded.model,
            recorded.describe(),
            partial(recorded.generate, tags=tags),
            config.max_connections,
            tags=tags,
            is_recorded=True,
            **shared,
        )
    if not config.model:
        raise UsageError("No --model. Try: r2w-eval --model smollm2 --tasks quickstart")
    opened = await pool.model(config.model, extra_body=config.extra_body)
    identity = {
        "model": opened.chat.id,
        "system_prompt": config.system_prompt,
        **opened.chat.describe(),
    }
    tags = tags.after(opened.prompt)

    async def generate(sample: Sample, request: ChatRequest) -> tuple[Reply, SplitText]:
        reply = await opened.chat.complete(request)
        return reply, read_reply_text(reply, tags)

    return Writing(opened.chat.id, identity, generate, opened.concurrency, tags=tags, **shared)


async def open_judging(
    config: RunConfig, pool: ModelPool
) -> tuple[Judging, dict[str, dict[str, Any]]]:
    """The judges, and what identifies each."""
    if config.judge == (NO_JUDGE,):
        return Judging((), 1), {NO_JUDGE: {}}
    scorers: list[Scorer] = []
    opened: list[OpenModel | None] = []
    for spec in config.judge:
        scorer, model = await pool.scorer(spec, config.score_mode)
        scorers.append(scorer)
        opened.append(model)
    if len({scorer.id for scorer in scorers}) < len(scorers):
        raise UsageError(f"--judge {', '.join(config.judge)}: the same judge twice. Name each once")
    concurrency = sum(model.concurrency if model else config.max_connections for model in opened)
    judging = Judging(scorers, concurrency, config.repeats)
    return judging, {scorer.id: scorer.describe() for scorer in scorers}
