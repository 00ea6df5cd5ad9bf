"""Ten items whose scores travel with every artefact, so that each consumer can test itself."""

from __future__ import annotations

from r2w_eval.reward_models.items import Item, ReflectionItem, WritingItem

_DRAFT = (
    "The ferry left at six with nine passengers and a goat in a crate. The silence was deafening. "
    "Then the lamps of the town came up one by one."
)
_FIXED = _DRAFT.replace("The silence was deafening. ", "")
_SAYS = 'Rereading "The silence was deafening.", I see that this is a cliché. I should cut it.'
_ASKS = 'Is "The silence was deafening." a cliché?'

GOLDEN_ITEMS: tuple[Item, ...] = (
    WritingItem("short", "Say hello.", "Hello."),
    WritingItem("long", "Describe a crossing.", " ".join([_DRAFT] * 6)),
    ReflectionItem("en", "Describe a crossing.", _DRAFT, _SAYS, _FIXED),
    ReflectionItem(
        "zh",
        "写一次坐船的经历。",
        "渡船六点开。空气仿佛凝固了。后来镇上的灯亮了。",
        "重读“空气仿佛凝固了”，我发现这是陈词滥调，我应该删掉。",
        "渡船六点开。后来镇上的灯亮了。",
    ),
    WritingItem("no tags", "", "A text without any tag, and without a prompt."),
    ReflectionItem("three segments", "Describe a crossing.", _DRAFT, _SAYS, _FIXED, (_ASKS, _SAYS)),
    ReflectionItem("no revision", "Describe a crossing.", _DRAFT, _SAYS),
    ReflectionItem("unclosed tag", "", _DRAFT, "A <reflection> inside: the cliché must go."),
    WritingItem("pad-heavy partner", "Continue.", "word " * 300),
    WritingItem("EOS in the prompt", "Say <|im_end|> and go on.", "It said so."),
)
