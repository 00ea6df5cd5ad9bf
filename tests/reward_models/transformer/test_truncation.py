"""Long items: refused, or shortened as the policy says, and the score tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from r2w_eval.reward_models.items import Item, ItemStatus, ReflectionItem, WritingItem
from r2w_eval.reward_models.transformer.render import render
from r2w_eval.reward_models.transformer.truncation import GAP, fit


def count(item: Item) -> int:
    """Words of what is read."""
    return len(render(item).text.split())


DRAFT = " ".join(f"w{n}" for n in range(60))
SAYS = "The end is weak."
EARLIER = (SAYS + " first" * 20, SAYS + " last" * 20)
LONG = ReflectionItem("1", "Write.", DRAFT, SAYS, None, EARLIER)


def test_unit_leaves_out_the_oldest_reflections_first() -> None:
    assert fit(LONG, count(LONG) - 15, count, "error") is None
    shorter = fit(LONG, count(LONG) - 15, count, "unit")
    assert isinstance(shorter, ReflectionItem)
    assert shorter.earlier == LONG.earlier[1:] and shorter.draft == LONG.draft
    assert fit(LONG, 30, count, "unit") is None


def test_middle_keeps_prompt_ends_and_reflection() -> None:
    shorter = fit(LONG, 40, count, "middle")
    assert isinstance(shorter, ReflectionItem) and count(shorter) <= 40
    assert shorter.reflection == LONG.reflection and shorter.earlier == ()
    assert shorter.draft.startswith("w0 ") and shorter.draft.endswith(" w59")
    assert GAP in shorter.draft
    text = fit(WritingItem("2", "Write.", DRAFT), 30, count, "middle")
    assert isinstance(text, WritingItem) and count(text) <= 30 and text.prompt == "Write."
    assert fit(WritingItem("3", "Write. " * 90, DRAFT), 40, count, "middle") is None


class Words:
    """A tokenizer of words, for a model of random weights."""

    pad_token_id = 0

    def __call__(self, texts: list[str], **_: bool) -> Any:
        ids = [[ord(w[0]) % 60 + 1 for w in text.split()] or [1] for text in texts]
        return type("Encoded", (), {"input_ids": ids})()


@pytest.mark.filterwarnings("ignore")
def test_the_scorer_says_how_much_was_cut_or_gives_no_value() -> None:
    torch = pytest.importorskip("torch")
    from r2w_eval.reward_models.transformer.scorer import ArtifactScorer
    from transformers import LlamaConfig, LlamaForSequenceClassification

    shape = LlamaConfig(vocab_size=64, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                        num_attention_heads=2, num_labels=1, pad_token_id=0)  # fmt: skip
    model = LlamaForSequenceClassification(shape).eval()
    items = [WritingItem("a", "", "short"), WritingItem("b", "Write.", DRAFT), LONG]

    def scores(policy: str) -> list[Any]:
        axes = torch.zeros(4, 8)
        return ArtifactScorer(Path("x"), model, Words(), axes, policy, 40).score(items)

    assert [s.status for s in scores("error")] == [
        ItemStatus.OK, ItemStatus.TOO_LONG, ItemStatus.TOO_LONG,
    ]  # fmt: skip
    short, text, remark = scores("middle")
    assert "cut_tokens" not in short.parts
    assert text.parts["cut_tokens"] > 0 and remark.parts["cut_tokens"] > 0


def test_in_a_language_that_no_cue_knows_places_still_count() -> None:
    from r2w_eval.reward_models.scorer import load_reward

    draft = "Η πόρτα άνοιξε. Ο σκύλος έφυγε. Κανείς δεν μίλησε."
    said = "Στο “{}” η φράση είναι αδύναμη."
    items = [
        ReflectionItem(place, "Γράψε.", draft, said.format(place), draft.replace(place, "Σιωπή."))
        for place in ("Ο σκύλος έφυγε.", "Το πλοίο βυθίστηκε.")
    ]
    there, absent = load_reward().score(items)
    assert there.status is absent.status is ItemStatus.OK
    assert there.value is not None and absent.value is not None
    assert there.value > absent.value
