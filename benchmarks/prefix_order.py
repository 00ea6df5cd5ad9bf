"""What the order of questions is worth to a server that caches prefixes, measured on a real one.

`python benchmarks/prefix_order.py`: llama.cpp serves the embedded model, and `HttpModel` asks about
a few long answers, several criteria each, the answer first: as the engine does (one question about
an answer leads, the others follow), all questions about an answer at once, and criterion by
criterion, as a loop over criteria would. Prints how many prompt tokens the server took from its
cache and the time, and writes results/prefix_order.json. Each order has a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r2w_eval.fakeserver.replies import hash_prompt, write_story
from r2w_eval.models.chat import ChatRequest
from r2w_eval.models.client import HttpModel
from r2w_eval.models.embedded import SLOTS, ensure_gguf, silence, start_server
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.models.names import EMBEDDED
from r2w_eval.models.prefixes import ask_by_prefix
from r2w_eval.store import write_json
from r2w_eval.types import Decoding, Message, Usage

RESULTS = Path(__file__).parent / "results" / "prefix_order.json"
CRITERIA = ("plot", "style", "voice", "pace", "imagery", "dialogue", "structure", "originality")


def question(answer: int, criterion: str) -> str:
    text = "\n\n".join(write_story(hash_prompt(answer, part)) for part in range(2))
    return f"{text}\n\nRate the {criterion} of this text from 1 to 10. Answer with a number."


async def ask_all(url: str, groups: Sequence[Sequence[str]], *, leads: bool) -> dict[str, int]:
    """Prompt tokens in all, and how many of them the server took from its cache."""
    settings = ClientSettings(max_connections=SLOTS, fixed_concurrency=True)
    model = HttpModel(Endpoint((f"{url}/v1",), EMBEDDED), settings)
    decoding = Decoding(max_tokens=2, temperature=0.0)
    used: list[Usage] = []

    async def ask(text: str) -> None:
        request = ChatRequest((Message("user", text),), decoding)
        used.append((await model.complete(request)).usage)

    async def ask_group(texts: Sequence[str]) -> None:
        if leads:
            await ask_by_prefix(texts, str, ask)
        else:
            await asyncio.gather(*map(ask, texts))

    try:
        await asyncio.gather(*map(ask_group, groups))
    finally:
        await model.close()
    return {
        "prompt_tokens": sum(usage.prompt_tokens or 0 for usage in used),
        "from_cache": sum(usage.cached_tokens or 0 for usage in used),
    }


def measure(groups: Sequence[Sequence[str]], *, leads: bool = False) -> dict[str, Any]:
    server = start_server(ensure_gguf())
    start = time.monotonic()
    try:
        counts = asyncio.run(ask_all(server.listening_address, groups, leads=leads))
    finally:
        seconds = time.monotonic() - start
        with silence():
            del server
    return {**counts, "s": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--answers", type=int, default=6)
    parser.add_argument("--criteria", type=int, default=4, choices=range(1, len(CRITERIA) + 1))
    options = parser.parse_args()
    chosen, answers = CRITERIA[: options.criteria], range(options.answers)
    by_answer = [[question(a, c) for c in chosen] for a in answers]
    found = {
        "one leads, the others follow": measure(by_answer, leads=True),
        "answer by answer, all at once": measure(by_answer),
        "criterion by criterion": measure([[question(a, c) for a in answers] for c in chosen]),
    }
    for name, row in found.items():
        print(f"{name}: {json.dumps(row)}")
    facts = {"answers": options.answers, "criteria": options.criteria, "slots": SLOTS}
    write_json(RESULTS, {**facts, "orders": found})


if __name__ == "__main__":
    main()
