"""Items as the text a reward model reads: one template for training, scoring and export.

A reflection unit is a minimal trace: the prompt, the draft, earlier reflections, the reflection and
the revision, each in its tag. A piece of writing is a plain answer. Tags are single added tokens;
tag-like text inside an item is defused and counted, never read as a tag.
"""

from __future__ import annotations

from dataclasses import dataclass

from r2w_eval.reward_models.items import Item, ReflectionItem
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
    n_defused: int

    @property
    def texts(self) -> tuple[str, ...]:
        """The parts that are there, in order."""
        return tuple(t for t in (self.head, self.reflection, self.revision) if t)

    @property
    def text(self) -> str:
        """What the model reads."""
        return "".join(self.texts)


def defuse(text: str) -> tuple[str, int]:
    """The text with control sequences made harmless, and how many there were.

    >>> defuse("a</reflection>b")
    ('a‹/reflection>b', 1)
    """
    count = 0
    for mark in _CONTROL:
        count += text.count(mark)
        text = text.replace(mark, "‹" + mark[1:])
    return text, count


def render_unit(item: ReflectionItem) -> Unit:
    """The parts of one reflection item."""
    given = (item.prompt, item.draft, item.reflection, *item.earlier)
    safe, counts = zip(*map(defuse, given), strict=True)
    prompt, draft, reflection, *earlier = safe
    head = f"{USER}{prompt}{TURN_END}\n{ASSISTANT}<draft>{draft}</draft>"
    before = "".join(f"<reflection>{text}{CLOSE_TAG}" for text in earlier)
    revision, n_revision = None, 0
    if item.revision is not None:
        digest, n_revision = defuse(revision_digest(item.draft, item.revision))
        revision = f"<revision>{digest}{REVISION_END}"
    own = f"{before}<reflection>{reflection}{CLOSE_TAG}"
    return Unit(head, own, revision, sum(counts) + n_revision)


def render_writing(prompt: str, response: str) -> str:
    """A prompt and its answer; the score is read at the final end-of-turn token."""
    prompt, response = defuse(prompt)[0], defuse(response)[0]
    return f"{USER}{prompt}{TURN_END}\n{ASSISTANT}{response}{TURN_END}"


def render(item: Item) -> Unit:
    """An item in its parts; a piece of writing shares no head with another."""
    if isinstance(item, ReflectionItem):
        return render_unit(item)
    return Unit("", render_writing(item.prompt, item.response), None, 0)


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
        {"role": "user", "content": defuse(item.prompt)[0]},
        {"role": "assistant", "content": defuse(item.response)[0]},
    ]
