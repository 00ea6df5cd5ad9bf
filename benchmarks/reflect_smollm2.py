"""Traces of the embedded model, told in two ways to reflect and revise, as JSON lines.

    python benchmarks/reflect_smollm2.py FOLDER [--first 0] [--limit 50]
    r2w-eval reflect FOLDER/turns.jsonl --out FOLDER/reflect

50 short prompts of our own. `system.jsonl`: one answer under a system prompt that asks for tagged
thinking. `turns.jsonl`: the same prompt, then "which phrase is weak and why", then "write it
again", stitched into one tagged trace; the last text is the answer. Files are continued, not
overwritten.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from pathlib import Path
from typing import Any

from r2w_eval.models.chat import ChatModel, ChatRequest
from r2w_eval.models.embedded import EmbeddedModel
from r2w_eval.store import JsonlWriter
from r2w_eval.trace.types import Kind, TagSchema
from r2w_eval.trace.writing import write_tagged
from r2w_eval.types import Decoding, Message

SYSTEM = Path(__file__).with_name("reflect_system.txt").read_text("utf-8").strip()
ONE_ANSWER_TOKENS = 300
TURN_TOKENS = 70
REFLECT = "Quote one phrase of your text that is weak, and say in one sentence why it is weak."
REVISE = "Write your text again with that phrase improved. Give only the new text."

SUBJECTS = [
    "a bakery at four in the morning",
    "a broken umbrella",
    "the last day of a school year",
    "a blind dog",
    "a lift that stops between floors",
    "a letter without a stamp",
    "a goalkeeper in the rain",
    "a grandmother who repairs radios",
    "a snowed-in bus station",
    "an empty aquarium",
    "a tailor with cold hands",
    "a wedding without music",
    "a bridge that is closed",
    "a lost glove",
    "a boy who counts trains",
    "a night nurse",
    "a field after the fair has left",
    "an unpaid bill",
    "a piano on a balcony",
    "a clock that runs backwards",
    "a gardener in October",
    "two chess players",
    "a map with a coffee stain",
    "a swimmer before the start",
    "a house that is for sale",
]
FORMS = ("Write two sentences about {}.", "Write the first three sentences of a story about {}.")


async def ask(model: ChatModel, messages: tuple[Message, ...], n: int, seed: int) -> str:
    """One reply; a failed call is an error here, since everything is local."""
    decoding = Decoding(max_tokens=n, temperature=0.7, top_p=0.9, seed=seed)
    return (await model.complete(ChatRequest(messages, decoding))).text.strip()


async def in_turns(model: ChatModel, prompt: str, seed: int) -> dict[str, Any]:
    """Draft, reflection and revision asked one after the other."""
    messages: tuple[Message, ...] = (Message("user", prompt),)
    texts = []
    for following in (REFLECT, REVISE, ""):
        text = await ask(model, messages, TURN_TOKENS, seed)
        texts.append(text)
        messages = (*messages, Message("assistant", text), Message("user", following))
    kinds = (Kind.DRAFT, Kind.REFLECTION, Kind.REVISION)
    thinking = write_tagged(list(zip(kinds, texts, strict=True)), TagSchema()).text
    return {"thinking": thinking, "answer": texts[-1]}


async def generate(folder: Path, first: int, limit: int) -> None:
    """Ask one prompt after the other and write each answer at once."""
    folder.mkdir(parents=True, exist_ok=True)
    model = EmbeddedModel()
    single, turns = JsonlWriter(folder / "system.jsonl"), JsonlWriter(folder / "turns.jsonl")
    prompts = [form.format(subject) for form, subject in itertools.product(FORMS, SUBJECTS)]
    try:
        for number, prompt in list(enumerate(prompts))[first : first + limit]:
            row = {"id": f"p{number:02}", "prompt": prompt}
            messages = (Message("system", SYSTEM), Message("user", prompt))
            raw = await ask(model, messages, ONE_ANSWER_TOKENS, number)
            single.append({**row, "raw": raw})
            turns.append({**row, **await in_turns(model, prompt, number)})
    finally:
        single.close()
        turns.close()
        await model.close()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--limit", type=int, default=50)
    args = parser.parse_args()
    asyncio.run(generate(args.folder, args.first, args.limit))


if __name__ == "__main__":
    main()
