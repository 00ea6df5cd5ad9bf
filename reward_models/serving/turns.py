"""Recovers prompt and answer from the text of a trainer, which a chat template may have made.

A template is recognised only at the beginning of a text. If the prompt is known, the answer is all
that follows it, even if the policy wrote headers of further turns. If it is not, the answer begins
after the first assistant header that follows a user turn; a policy that writes both headers can
fake that, so trainers should send prompts separately. End-of-turn tokens are removed from every
completion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from r2w_eval.models.thinking import ThinkTags

# the head of a turn, its role in group 1: ChatML, Llama 3, Gemma, Phi and Zephyr, DeepSeek, Mistral
HEADS = tuple(
    map(
        re.compile,
        (
            r"<\|im_start\|>(\w+)\n",
            r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n",
            r"<start_of_turn>(\w+)\n",
            r"<\|(system|user|assistant)\|>\n?",
            r"<｜(begin▁of▁sentence|User|Assistant)｜>",
            r"\[(/?INST)\]",
        ),
    )
)
USERS, ASSISTANTS = {"user", "User", "INST"}, {"assistant", "model", "Assistant", "/INST"}
ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<eos>",
    "<|end|>",
    "</s>",
    "<｜end▁of▁sentence｜>",
)
BEGINS = ("<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>")


def _any_of(tokens: Sequence[str]) -> str:
    return "|".join(map(re.escape, tokens))


# possessive, for a policy may write nothing but blanks or such tokens: one pass, and no stack of it
_BEGINNING = re.compile(rf"\s*+(?:{_any_of(BEGINS)})*+")
_ENDING_REVERSED = re.compile(rf"(?:\s++|{_any_of([token[::-1] for token in ENDS])})*+")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt and its completion; `is_opened`: the template opened the thinking."""

    prompt: str
    completion: str
    is_opened: bool = False


class Turn(NamedTuple):
    """One turn; its content, without end-of-turn tokens, starts at offset `start` of the text."""

    role: str
    content: str
    start: int

    @property
    def is_user(self) -> bool:
        """Whether it is a user's turn."""
        return self.role in USERS


def read_exchange(prompt: str, text: str) -> Exchange:
    """Prompt and completion of a text that may hold both.

    >>> read_exchange("", "<start_of_turn>user\\nHi<end_of_turn>\\n<start_of_turn>model\\nYes.")
    Exchange(prompt='Hi', completion='Yes.', is_opened=False)
    >>> read_exchange("Say: ", "<s>Say: yes.</s>").completion
    'yes.'
    """
    own = text[_after_begins(text) :]
    shared = prompt[_after_begins(prompt) :]
    asked = next((turn.content for turn in reversed(read_turns(prompt)) if turn.is_user), None)
    if shared and own.startswith(shared):
        text = own.removeprefix(shared)
    elif turns := read_turns(text):
        told, start = _find_answer(turns, len(text))
        # heads of a policy's own, behind another question than it was asked, are its text
        question = prompt if asked is None else asked
        if not prompt or (told or "").strip() == question.strip():
            return Exchange(told or prompt, without_ends(text[start:]).strip())
    is_opened = ThinkTags().after(prompt).opened_by_template
    return Exchange(prompt if asked is None else asked, without_ends(text), is_opened)


def read_turns(text: str) -> list[Turn]:
    """Roles and contents, in order; none where the text does not begin with a template.

    >>> [(turn.role, turn.content) for turn in read_turns("<s>[INST] Write. [/INST] Once")]
    [('INST', 'Write.'), ('/INST', 'Once')]
    """
    start = _after_begins(text)
    head = next((head for head in HEADS if head.match(text, start)), None)
    if head is None:
        return []
    found = list(head.finditer(text, start))
    ends = [*(match.start() for match in found[1:]), len(text)]
    return [
        Turn(match[1], without_ends(text[match.end() : end]).strip(), match.end())
        for match, end in zip(found, ends, strict=True)
    ]


def without_ends(text: str) -> str:
    """The text without end-of-turn tokens and white space at its end.

    >>> without_ends("Once.<|im_end|>\\n<|endoftext|>")
    'Once.'
    """
    ending = _ENDING_REVERSED.match(text[::-1])
    return text[: len(text) - ending.end()] if ending else text


def _after_begins(text: str) -> int:
    """Offset after leading blanks and begin-of-sequence tokens."""
    beginning = _BEGINNING.match(text)
    return beginning.end() if beginning else 0


def _find_answer(turns: Sequence[Turn], end: int) -> tuple[str | None, int]:
    """The last question that has an answer, and the answer's offset; `end` if none has one."""
    asked: str | None = None
    found: tuple[str | None, int] = (None, end)
    is_answered = False
    for turn in turns:
        if turn.is_user:
            asked, is_answered = turn.content, False
        elif turn.role in ASSISTANTS and not is_answered:
            found, is_answered = (asked, turn.start), True
    return found
