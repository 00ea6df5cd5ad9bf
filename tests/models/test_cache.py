"""The reply cache: what tells entries apart, many processes, and files that are no cache."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from r2w_eval.errors import R2WError, UsageError
from r2w_eval.models.cache import CachedLabelReader, CachedModel, ReplyCache
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, LabelProbabilities, Reply
from r2w_eval.types import Decoding, Message, Scale, Usage


class Counting:
    """A model that numbers its replies."""

    def __init__(self, name: str = "m", facts: dict[str, Any] | None = None) -> None:
        self.id = name
        self.facts = facts or {}
        self.calls = 0

    def describe(self) -> dict[str, Any]:
        return self.facts

    async def close(self) -> None: ...

    async def complete(self, request: ChatRequest) -> Reply:
        self.calls += 1
        if request.messages[0].content == "fail":
            raise CallFailed(CallStatus.TRANSPORT, "lost")
        return Reply(
            f"reply {self.calls} \ud800\u2028", "stop", "why", "m-1", "fp", Usage(1, 2), 0.5
        )

    async def read_labels(self, messages: tuple[Message, ...], scale: Scale) -> LabelProbabilities:
        self.calls += 1
        return LabelProbabilities({"1": 0.5 / self.calls}, "m-1")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ReplyCache]:
    with ReplyCache(tmp_path / "c" / "replies.sqlite") as opened:
        yield opened


BASE = ChatRequest(
    (Message("system", "s"), Message("user", "u")),
    Decoding(10, 0.5, 0.9, 5, 0.1, ("END",), 7),
)
CHANGED = {
    "max_tokens": 11, "temperature": 0.6, "top_p": 0.8, "top_k": 6, "min_p": 0.2,
    "stop": ("end",), "seed": 8,
    "response_format": "{}",
}  # fmt: skip


def ask(model: CachedModel, *requests: ChatRequest) -> list[Reply]:
    async def job() -> list[Reply]:
        return [await model.complete(request) for request in requests]

    return asyncio.run(job())


def test_the_same_request_is_answered_once_with_every_field(cache: ReplyCache) -> None:
    model = Counting()
    first, second = ask(CachedModel(model, cache), BASE, BASE)
    assert model.calls == 1 and not first.cached
    assert second == replace(first, cached=True) and cache.hits == 1


@pytest.mark.parametrize(
    "request_",
    [
        *(replace(BASE, decoding=replace(BASE.decoding, **{k: v})) for k, v in CHANGED.items()),
        *(replace(BASE, decoding=replace(BASE.decoding, **{k: None})) for k in list(CHANGED)[:3]),
        replace(BASE, index=1),
        replace(BASE, ask=1),
        replace(BASE, messages=BASE.messages[1:]),
        replace(BASE, messages=BASE.messages[::-1]),
        replace(BASE, messages=(Message("system", "su"), Message("user", ""))),
        replace(BASE, messages=(Message("user", "s"), Message("user", "u"))),
    ],
)  # fmt: skip
def test_everything_that_changes_an_answer_changes_the_key(
    cache: ReplyCache, request_: ChatRequest
) -> None:
    model = Counting()
    ask(CachedModel(model, cache), BASE, request_)
    assert model.calls == 2


def test_all_decoding_parameters_are_covered_above() -> None:
    assert set(CHANGED) == {f.name for f in fields(Decoding)}


def test_other_models_weights_and_addresses_have_their_own_entries(cache: ReplyCache) -> None:
    models = [Counting(), Counting("n"), Counting(facts={"sha": 1}), Counting(facts={"sha": 2})]
    for model in models:
        ask(CachedModel(model, cache, ("http://a/v1",)), BASE)
        ask(CachedModel(model, cache, ("http://b/v1",)), BASE)
    assert [model.calls for model in models] == [2, 2, 2, 2]


def test_another_address_or_order_of_one_endpoint_pays_nothing_again(cache: ReplyCache) -> None:
    model = Counting()
    for order in ("abc", "cab", "xb", "c", "x", "a"):
        (reply,) = ask(CachedModel(model, cache, tuple(order)), BASE)
        # x alone never answered, and never was of an endpoint whose reply was asked for
        assert reply.text.startswith("reply 2" if order == "x" else "reply 1")
    assert model.calls == 2
    ask(CachedModel(model, cache, tuple("bc")), replace(BASE, anew=True))
    (reply,) = ask(CachedModel(model, cache, ("c",)), BASE)
    assert reply.text.startswith("reply 3") and reply.cached


def test_an_address_that_never_answered_gets_no_reply_of_the_others(cache: ReplyCache) -> None:
    model = Counting()
    ask(CachedModel(model, cache, tuple("ab"), lambda: {"a"}), BASE)
    (reply,) = ask(CachedModel(model, cache, ("b",)), BASE)
    assert reply.text.startswith("reply 2") and not reply.cached
    (reply,) = ask(CachedModel(model, cache, tuple("xa")), BASE)
    assert reply.text.startswith("reply 1") and reply.cached


def test_a_fresh_reply_replaces_the_stored_one(cache: ReplyCache) -> None:
    model = CachedModel(Counting(), cache)
    replies = ask(model, BASE, BASE, replace(BASE, anew=True), BASE)
    assert [reply.text[:7] for reply in replies] == ["reply 1", "reply 1", "reply 2", "reply 2"]
    assert [reply.cached for reply in replies] == [False, True, False, True]


def test_failures_are_never_stored(cache: ReplyCache) -> None:
    model = Counting()
    failing = ChatRequest((Message("user", "fail"),), Decoding())
    for _ in range(2):
        with pytest.raises(CallFailed):
            ask(CachedModel(model, cache), failing)
    assert model.calls == 2 and cache.stats().entries == 0


def test_label_probabilities_are_stored_by_scale(cache: ReplyCache) -> None:
    model = Counting()
    reader = CachedLabelReader(model, model, cache)
    scale = Scale("s", {"1": 1.0})

    async def job() -> list[LabelProbabilities]:
        scales = [scale, scale, replace(scale, lead="t"), replace(scale, end="}")]
        return [await reader.read_labels(BASE.messages, one) for one in scales]

    first, second, *_ = asyncio.run(job())
    assert model.calls == 3 and second == replace(first, cached=True)


def test_old_entries_are_pruned_and_counted(cache: ReplyCache) -> None:
    ask(CachedModel(Counting(), cache), BASE, replace(BASE, index=1))
    assert cache.stats().entries == 2
    assert cache.prune(3600) == 0 and cache.prune(-1) == 2
    stats = cache.stats()
    assert (stats.entries, stats.oldest) == (0, None)


def test_a_cache_of_another_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(UsageError, match=r"version 99.*Move that file away.*--no-cache"):
        ReplyCache(path)


@pytest.mark.parametrize("content", [b"not a database, but long enough to be read as one" * 40])
def test_a_file_that_is_not_a_cache_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "replies.sqlite"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not a usable cache"):
        ReplyCache(path)
    assert path.read_bytes() == content


def test_a_cache_that_fails_later_is_one_clear_error(cache: ReplyCache) -> None:
    cache._db.execute("DROP TABLE replies")
    for use in (
        lambda: cache.get("k"),
        lambda: cache.put("k", value=1),
        cache.stats,
        lambda: cache.prune(0),
    ):
        with pytest.raises(R2WError, match="--no-cache"):
            use()


def test_a_full_disk_is_one_clear_error(cache: ReplyCache) -> None:
    pages = cache._db.execute("PRAGMA page_count").fetchone()[0]
    cache._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(R2WError, match=r"full.*run the same"):
        cache.put("k", value="x" * 100_000)
    assert cache.get("k") is None


def fill(path: Path, worker: int) -> None:
    with ReplyCache(path) as cache:
        for number in range(100):
            cache.put(f"shared {number}", value={"by": worker})
            cache.put(f"own {worker} {number}", value={"by": worker})
            assert cache.get(f"shared {number}") is not None


def test_many_processes_share_one_new_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "replies.sqlite"
    workers = [context.Process(target=fill, args=(path, n)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 6
    with ReplyCache(path) as cache:
        assert cache.stats().entries == 100 + 6 * 100
