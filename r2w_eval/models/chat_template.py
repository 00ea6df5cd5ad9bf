"""Prompts by a checkpoint's own chat template, and nothing of a request lost on the way.

Some templates have no place for a system turn: they raise, or leave it out. Its text then stands
before that of the first other turn, and the identity says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from r2w_eval.errors import UsageError
from r2w_eval.hashing import text_hash, to_plain
from r2w_eval.types import Message

_PROBE = "r2w-eval-system-turn"


class ChatTemplate:
    """The template of one tokenizer. `arguments` go to it as they are: `enable_thinking`."""

    def __init__(self, tokenizer: Any, path: str, arguments: Mapping[str, Any] | None = None):
        if not tokenizer.chat_template:
            raise UsageError(
                f"{path!r}: the tokenizer has no chat template, so there is no way to put a "
                f"request to this model. Expected chat_template in tokenizer_config.json or "
                f"chat_template.jinja beside it"
            )
        self._tokenizer = tokenizer
        self._path = path
        self._arguments = dict(arguments or {})
        self._has_system = self._shows_system()

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, ready for the answer. Raises UsageError where the template refuses it."""
        from jinja2 import TemplateError

        try:
            return self._apply(messages if self._has_system else fold_system(messages))
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            raise UsageError(
                f"{self._path!r}: its chat template refuses turns of {roles}: {error}. Use another "
                f"model for this, or mend chat_template.jinja in the checkpoint"
            ) from error

    def describe(self) -> dict[str, Any]:
        """What of the template changes prompts."""
        return {
            "chat_template": text_hash(str(self._tokenizer.chat_template))[:12],
            **({"template_arguments": self._arguments} if self._arguments else {}),
            **({} if self._has_system else {"system_turn": "before the first other turn"}),
        }

    def _shows_system(self) -> bool:
        from jinja2 import TemplateError

        try:
            return _PROBE in self._apply([Message("system", _PROBE), Message("user", "Hi")])
        except TemplateError:
            return False

    def _apply(self, messages: Sequence[Message]) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                to_plain(messages), tokenize=False, add_generation_prompt=True, **self._arguments
            )
        )


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """System turns as the beginning of the first other turn.

    >>> [m.content for m in fold_system([Message("system", "Rhyme."), Message("user", "Hi")])]
    ['Rhyme.\\n\\nHi']
    """
    system = [message.content for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    if not system or not rest:
        return list(messages)
    return [replace(rest[0], content="\n\n".join([*system, rest[0].content])), *rest[1:]]
