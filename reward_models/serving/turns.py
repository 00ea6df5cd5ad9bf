"""What a trainer sends, read back: prompt and answer out of a text that a chat template made.

A template is read where a text begins with it, so that nothing that a policy writes further on can
pass for the prompt's end. Tokens that end a turn are taken off every completion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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


def read_exchange(prompt: str, text: str) -> Exchange:
    """Prompt and completion of a text that may hold both.

    >>> read_exchange("", "<start_of_turn>user\\nHi<end_of_turn>\\n<start_of_turn>model\\nYes.")
    Exchange(prompt='Hi', completion='Yes.', is_opened=False)
    >>> read_exchange("Say: ", "Say: yes.</s>").completion
    'yes.'
    """
    if prompt and text.startswith(prompt):
        text = text.removeprefix(prompt)
    elif turns := read_turns(text):
        asked, answered = _last(turns, USERS), _last(turns, ASSISTANTS)
        return Exchange(asked or prompt, without_ends(answered or ""))
    asked = _last(read_turns(prompt), USERS)
    is_opened = prompt.rstrip().endswith(ThinkTags().open)
    return Exchange(prompt if asked is None else asked, without_ends(text), is_opened)


def read_turns(text: str) -> list[tuple[str, str]]:
    """Roles and contents, in order; none where the text does not begin with a template.

    >>> read_turns("<s>[INST] Write. [/INST] Once")
    [('INST', 'Write.'), ('/INST', 'Once')]
    """
    start = _after_begins(text)
    head = next((head for head in HEADS if head.match(text, start)), None)
    if head is None:
        return []
    found = list(head.finditer(text, start))
    ends = [*(match.start() for match in found[1:]), len(text)]
    return [
        (match[1], without_ends(text[match.end() : end]).strip())
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


def _last(turns: list[tuple[str, str]], roles: set[str]) -> str | None:
    return next((content for role, content in reversed(turns) if role in roles), None)
