"""Order for prefix caches: one leads, those that begin alike follow, before other leaders."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.chat import ChatRequest
from r2w_eval.models.client import HttpModel
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.models.prefixes import ask_by_prefix, group_by_prefix
from r2w_eval.types import Decoding, Message

LONG = "A long story. " * 400


@given(st.lists(st.text("ab", max_size=12), max_size=12), st.integers(0, 3))
def test_every_text_is_in_one_group_and_groups_begin_alike(texts: list[str], tokens: int) -> None:
    groups = group_by_prefix(texts, tokens)
    assert sorted(place for group in groups for place in group) == list(range(len(texts)))
    assert sum(groups, []) == sorted(range(len(texts)), key=lambda place: texts[place])


def test_short_beginnings_and_chinese_ones() -> None:
    assert group_by_prefix([LONG[:3000] + c for c in "xy"]) == [[0], [1]]
    assert group_by_prefix([LONG + c for c in "xy"]) == [[0, 1]]
    assert group_by_prefix(["写作测试文字" * 300 + c for c in "yx"]) == [[1, 0]]


def test_one_leads_and_the_others_follow_before_later_leaders() -> None:
    questions = [f"{answer} {LONG}{name}" for answer in "abcd" for name in ("one", "two", "three")]
    back: list[str] = []

    async def job(url: str) -> list[str]:
        settings = ClientSettings(max_connections=1, fixed_concurrency=True)
        client = HttpModel(Endpoint((url,), "judge-0"), settings)

        async def ask(text: str) -> str:
            asked.append(text[0])
            assert asked.count(text[0]) == 1 or text[0] in back, "it follows a leader on its way"
            reply = await client.complete(ChatRequest((Message("user", text),), Decoding()))
            back.append(text[0])
            return reply.text

        asked: list[str] = []
        try:
            return await ask_by_prefix(questions, str, ask)
        finally:
            await client.close()

    with FakeServer() as server:
        assert len(set(asyncio.run(job(server.base_url)))) == 12
    # the connection went to the second leader when the first was back, and to no third one
    assert set(back[:6]) == {"a", "b"}
