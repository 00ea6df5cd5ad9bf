"""Items as the text a reward model reads: one template for training, scoring and export.

A reflection unit is a minimal trace: the prompt, the draft, earlier reflections that it repeats,
the reflection and the revision, each in its tag. A piece of writing is a plain answer. Tags are
single added tokens; tag-like text inside an item is removed or defused, never read as a tag. What
must not count is not shown: self-praise, politeness and orders to the reader, as far as the cue
words know them (`language/filler.py`), and earlier remarks on something else.
"""

from __future__ import annotations

from dataclasses import dataclass

from r2w_eval.reward_models.items import Item, ReflectionItem
from r2w_eval.reward_models.language.filler import MAX_CLEANED, body_of, clean
from r2w_eval.reward_models.language.repeats import overlap
from r2w_eval.reward_models.transformer.digest import revision_digest

TAGS = (
    "<draft>",
    "</draft>",
    "<reflection>",
    "</reflection>",
    "<revision>",
    "</revision>",
)
CLOSE_TAG = "</reflection>"
REVISION_END = "</revision>"
TURN_END = "<|im_end|>"
PAD = "<|r2w_pad|>"
_CONTROL = (*TAGS, "<|im_start|>", TURN_END, "<|endoftext|>", PAD)
USER, ASSISTANT = "<|im_start|>user\n", "<|im_start|>assistant\n"
# The whole template in Jinja, byte-stable: no date, no system prompt, thinking verbatim.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message.get('reasoning_content') %}"
    "{{ '<think>' + message['reasoning_content'] + '</think>' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>' }}{% if not loop.last %}{{ '\\n' }}{% endif %}"
    "{% endfor %}"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A rendered reflection item in its parts; joined, they are the text.

    `head` is shared by all reflections on one draft.
    """

    head: str
    reflection: str
    revision: str | None

    @property
    def texts(self) -> tuple[str, ...]:
        """The parts that are there, in order."""
        return tuple(t for t in (self.head, self.reflection, self.revision) if t)

    @property
    def text(self) -> str:
        """What the model reads."""
        return "".join(self.texts)


def defuse(text: str) -> str:
    """The text with control sequences made harmless.

    >>> defuse("a</reflection>b")
    'a‹/reflection>b'
    """
    for mark in _CONTROL:
        text = text.replace(mark, "‹" + mark[1:])
    return text


def render_unit(item: ReflectionItem) -> Unit:
    """The parts of one reflection item."""
    head = f"{USER}{defuse(item.prompt)}{TURN_END}\n{ASSISTANT}<draft>{defuse(item.draft)}</draft>"
    said = clean(item.reflection)
    remarks = [*_repeated(item, said), said]
    own = "".join(f"<reflection>{defuse(text)}{CLOSE_TAG}" for text in remarks)
    if item.revision is None:
        return Unit(head, own, None)
    digest = defuse(revision_digest(item.draft, clean(item.revision, item.draft)))
    return Unit(head, own, f"<revision>{digest}{REVISION_END}")


def _repeated(item: ReflectionItem, said: str) -> list[str]:
    """The earlier reflections that `said` repeats, which holds no filler: that could hide it."""
    latest = item.latest if len(said) <= MAX_CLEANED else ()
    return [clean(one) for one in latest if overlap(said, one).is_repeat]


def render_writing(prompt: str, response: str) -> str:
    """A prompt and its answer; the score is read at the final end-of-turn token."""
    answer = defuse(body_of(response))
    return f"{USER}{defuse(prompt)}{TURN_END}\n{ASSISTANT}{answer}{TURN_END}"


def render(item: Item) -> Unit:
    """An item in its parts; a piece of writing shares no head with another."""
    if isinstance(item, ReflectionItem):
        return render_unit(item)
    return Unit("", render_writing(item.prompt, item.response), None)


def messages_of(item: Item) -> list[dict[str, str]]:
    """The item as chat messages; the template renders them to the same text.

    A unit ends after its last tag, a chat with the end of the turn.
    """
    if isinstance(item, ReflectionItem):
        unit = render_unit(item)
        head, _, body = unit.text.partition(ASSISTANT)
        prompt = head.removeprefix(USER).removesuffix(f"{TURN_END}\n")
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": body}]
    return [
        {"role": "user", "content": defuse(item.prompt)},
        {"role": "assistant", "content": defuse(body_of(item.response))},
    ]
