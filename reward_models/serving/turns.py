"""What a trainer sends, read back: prompt and answer out of a text that a chat template made.

A template is read where a text begins with it. Behind the prompt nothing is a turn: the answer is
all that a policy wrote, heads of turns included. Where only one text is sent, it begins behind the
first head of an assistant after a user's turn, and a policy that writes both heads can still pass
one off: trainers should send their prompts beside it. Tokens that end a turn are taken off every
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


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt and what was written for it; `is_opened`: the template began the thinking."""

    prompt: str
    completion: str
    is_opened: bool = False


class Turn(NamedTuple):
    """One turn; its content, without the tokens that end it, starts at `start` of the text."""

    role: str
    content: str
    start: int

    @property
    def is_user(self) -> bool:
        """Someone asks."""
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
    """A text without the tokens that end a turn, and the blanks among them.

    >>> without_ends("Once.<|im_end|>\\n<|endoftext|>")
    'Once.'
    """
    end = len(text)
    while n := _length_of_end(text, end):
        end -= n
    return text[:end]


def _length_of_end(text: str, end: int) -> int:
    """Characters of the token or blank before `end`; 0 for anything else."""
    token = next((token for token in ENDS if text.endswith(token, 0, end)), "")
    return len(token) or int(text[end - 1 : end].isspace())


def _after_begins(text: str) -> int:
    """Where a text begins after its blanks and the tokens that begin a sequence."""
    start = len(text) - len(text.lstrip())
    while found := next((token for token in BEGINS if text.startswith(token, start)), None):
        start += len(found)
    return start


def _find_answer(turns: Sequence[Turn], end: int) -> tuple[str | None, int]:
    """The last question that is answered, and where its answer starts; `end` where none is."""
    asked: str | None = None
    found: tuple[str | None, int] = (None, end)
    is_answered = False
    for turn in turns:
        if turn.is_user:
            asked, is_answered = turn.content, False
        elif turn.role in ASSISTANTS and not is_answered:
            found, is_answered = (asked, turn.start), True
    return found
