"""Patches: what they make of a text, and that no reader of a trace tells them from full texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.reward_models.rules import RulesScorer
from r2w_eval.training.rl.completions import read_completion, reflections

from r2w_eval.errors import UsageError
from r2w_eval.trace.links import full_texts, link_reflections
from r2w_eval.trace.patches import Allowance, apply_patch, is_patch, numbered, read_patch, versions
from r2w_eval.trace.tags import parse_tagged
from r2w_eval.trace.types import Fault, Kind, TagSchema
from r2w_eval.trace.units import units
from r2w_eval.trace.writing import write_tagged

SCHEMA = TagSchema()
PARAGRAPHS = [
    "The crew of the ferry loaded the goods. The silence was deafening.",
    "Fog lay on the quay.\nNobody came.",
    "References:\n[1] Smith 2020\n[2] Jones 2021",
    "雾很浓。她什么也没说。",
]
CHANGES = st.dictionaries(
    st.integers(1, 5),
    st.sampled_from(["", "The fog was thick.", "Two.\n\nParts.", "[1] Smith 2021", *PARAGRAPHS]),
    min_size=1,
)


def write_patch(changes: dict[int, str]) -> str:
    return "\n\n".join(f"[{number}]\n{text}" for number, text in sorted(changes.items()))


def chain(texts: list[str]) -> list[tuple[Kind, str]]:
    """A draft and its revisions, with a thought before each."""
    parts = [(Kind.DRAFT, texts[0])]
    for n, text in enumerate(texts[1:]):
        thought = f'{n}: "the silence was deafening" is a cliché. I should cut it.'
        parts += [(Kind.REFLECTION, thought), (Kind.REVISION, text)]
    return parts


def scores(thinking: str, answer: str) -> list[float | None]:
    """As RL and `signal` read a completion."""
    text = f"<think>\n{thinking}\n</think>\n{answer}"
    trace = read_completion([ord(c) for c in text], lambda ids: "".join(map(chr, ids)), SCHEMA)
    items = [one.item for one in reflections(trace, "Tell of a ferry.", "0")]
    return [score.value for score in RulesScorer().score(items)]


@given(st.lists(st.sampled_from(PARAGRAPHS), min_size=1, max_size=5), st.lists(CHANGES, max_size=3))
def test_a_trace_in_patches_is_the_same_trace_in_full(
    draft: list[str], rounds: list[dict[int, str]]
) -> None:
    written, full = ["\n\n".join(draft)], ["\n\n".join(draft)]
    for changes in rounds:
        patch = write_patch(changes)
        try:
            full.append(apply_patch(full[-1], patch))
            written.append(patch)
        except UsageError:
            continue
    short, long = (write_tagged(chain(texts), SCHEMA).text for texts in (written, full))
    assert units(parse_tagged(short, SCHEMA)) == units(parse_tagged(long, SCHEMA))
    assert scores(short, full[-1]) == scores(long, full[-1])
    linked = link_reflections(parse_tagged(short, SCHEMA))
    assert [link.outcome for link in linked] == full[1:]


@given(st.lists(st.sampled_from(PARAGRAPHS), min_size=1, max_size=5))
def test_the_numbered_text_as_a_patch_changes_nothing(parts: list[str]) -> None:
    text = "\n\n".join(parts)
    assert apply_patch(text, numbered(text)) == text


def test_lines_may_end_as_on_windows() -> None:
    patch = "[2]\r\nNew.\r\n[3]\r\n"
    assert is_patch(patch) and apply_patch("One.\n\nTwo.\n\nThree.", patch) == "One.\n\nNew."


def test_a_numbered_list_in_a_paragraph_is_text() -> None:
    text = "Title.\n\nMethods para.\n\nResults para.\n\nOld list."
    patch = "[4]\nReferences:\n[1] Smith 2020\n[2] Jones 2021"
    whole = apply_patch(text, patch)
    assert whole == f"Title.\n\nMethods para.\n\nResults para.\n\n{patch[4:]}"


@pytest.mark.parametrize(
    "patch",
    [
        "[4]\nReferences:\n[1]\nSmith 2020",
        "[2]\nOne.\n\n[2]\nTwo.",
        "[2] New.",
        "New.\n[2]\nNew.",
        "",
    ],
)
def test_an_ambiguous_patch_is_read_as_text(patch: str) -> None:
    with pytest.raises(UsageError):
        read_patch(patch)


@pytest.mark.parametrize("patch", ["[3]\nNew.", "[0]\nNew.", "[1]\n[2]\n", "[2]\na\n[1]\nb"])
def test_a_patch_that_does_not_fit_changes_nothing_and_is_a_fault(patch: str) -> None:
    text = "One.\n\nTwo."
    with pytest.raises(UsageError):
        apply_patch(text, patch)
    parts = [*chain([text, patch]), (Kind.REFLECTION, "Still flat."), (Kind.REVISION, "Three.")]
    trace = parse_tagged(write_tagged(parts, SCHEMA).text, SCHEMA)
    faults = [own.faults for own in trace.segments if own.kind is Kind.REVISION]
    assert faults == [(Fault.UNFIT_PATCH,), ()]
    assert [(own.draft, own.revision) for own in units(trace)] == [(text, text), (text, "Three.")]


def test_patches_without_end_make_no_texts_without_end() -> None:
    draft = "\n\n".join(f"Paragraph {i} of the text." for i in range(2_000))
    parts = [(Kind.DRAFT, draft), *((Kind.REVISION, f"[1]\nNew {i}.") for i in range(2_000))]
    bound = Allowance.FREE + Allowance.SHARE * sum(len(text) for _, text in parts)
    after = list(versions(parts))
    assert sum(len(one.text) for one in {one.text: one for one in after}.values()) < 2 * bound
    assert after[1].fits and not after[-1].fits
    # what did not fit changed nothing
    assert after[-1].text == after[-2].text != draft


def test_short_revisions_without_end_make_no_texts_without_end() -> None:
    draft = " ".join(f"Sentence {i} of the text." for i in range(1_000))
    turns = "<reflection>The ending is weak.</reflection><revision>The end {}.</revision>"
    thinking = f"<draft>{draft}</draft>" + "".join(turns.format(i) for i in range(300))
    texts = set(full_texts(parse_tagged(thinking, TagSchema())).values())
    assert sum(map(len, texts)) < 2 * (Allowance.FREE + Allowance.SHARE * len(thinking))
