"""Scores items with an exported folder, on the CPU or a GPU; the raw head, as others read it.

On a GPU: bfloat16, batches of like length, causal attention without a mask for single texts, a mask
made on the device for drafts with many reflections, one read-back a call. Only the body and the
head at the places that are read are computed. On a CPU nothing is padded, and each branch of a
draft attends for itself (`forest.py`). `compiled` fuses each layer (torch.compile, once a process
and about half a minute): for millions of items.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.axes import HEAD_AXES
from r2w_eval.reward_models.items import (
    Item,
    ItemScore,
    ItemStatus,
    ReflectionItem,
    failed,
    unscorable,
)
from r2w_eval.reward_models.transformer.golden import GOLDEN_ITEMS
from r2w_eval.reward_models.transformer.packing import by_budget, hidden_at
from r2w_eval.reward_models.transformer.plans import (
    Plan,
    encode_with,
    n_tokens,
    plan,
    tokenise,
    windows,
    within,
)
from r2w_eval.reward_models.transformer.render import CLOSE_TAG, REVISION_END, Unit, render
from r2w_eval.reward_models.transformer.truncation import POLICIES, fit

from r2w_eval.errors import UsageError
from r2w_eval.hashing import file_hash

META_FILE = "r2w_rm.json"
# In a folder of its own: vLLM reads every *.safetensors beside config.json and refuses other keys.
AXES_FILE = "r2w/axes.safetensors"
MAX_TOKENS = 8192
# tokens of one pass, with padding; on a CPU a pass of one long text is as good as any
BATCH_TOKENS: Mapping[str, int] = {"cuda": 1 << 16, "cpu": 1 << 10}


@dataclass(frozen=True)
class ArtifactScorer:
    """A `LlamaForSequenceClassification` with its tokenizer; `axes` (4, width) in float32;
    `weights` is the file in the folder that it came from.
    """

    folder: Path
    model: Any
    tokenizer: Any
    axes: Any
    truncation: str = "error"
    max_tokens: int = MAX_TOKENS
    weights: str = "model.safetensors"

    @cached_property
    def id(self) -> str:
        """The folder's name and the hash of its weights, which are read once."""
        return f"{self.folder.name}@{file_hash(self.folder / self.weights)[:12]}"

    def describe(self) -> Mapping[str, Any]:
        """Form, position and limit of reading."""
        return {"input_form": "unit", "read_position": "next_revision_end",
                "truncation": self.truncation, "max_tokens": self.max_tokens}  # fmt: skip

    @classmethod
    def load(
        cls, folder: Path, dtype: str | None = None, device: str | None = None
    ) -> ArtifactScorer:
        """Load and self-test against the golden vectors. Raises UsageError.

        Default: a GPU in bfloat16 where there is one, else the CPU in float32.
        """
        import torch
        from safetensors.torch import load_file
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if not (folder / META_FILE).is_file():
            raise UsageError(
                f"--scorer {str(folder)!r}: no {META_FILE}, so this is no exported reward model. "
                f"Try: r2w-eval train rm --export DIR"
            )
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or ("bfloat16" if device.startswith("cuda") else "float32")
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).to(device)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        axes = load_file(folder / AXES_FILE)["axes.weight"].to(model.device)
        policy = json.loads((folder / META_FILE).read_bytes())["truncation"]
        if policy not in POLICIES:
            raise UsageError(
                f"{folder / META_FILE}: truncation {policy!r}. Allowed: {', '.join(POLICIES)}"
            )
        scorer = cls(folder, model.eval(), tokenizer, axes, policy)
        scorer.self_test(dtype)
        return scorer

    def self_test(self, dtype: str = "float32") -> None:
        """Compare with the golden vectors. Raises UsageError naming the likely causes."""
        from r2w_eval.reward_models.transformer.artifact import check

        meta = json.loads((self.folder / META_FILE).read_bytes())
        check(self.model, self.tokenizer)
        found = self.score(list(GOLDEN_ITEMS))
        for kept, score in zip(meta["golden"], found, strict=True):
            gap = abs((score.value if score.value is not None else math.nan) - kept["outcome"])
            if not gap <= meta["tolerance"].get(dtype, 5e-2):
                raise UsageError(
                    f"{self.folder}: golden vector {kept['id']!r} gives {score.value}, recorded "
                    f"{kept['outcome']} (stale_artifact). Likely a head that was not loaded, an "
                    f"activation, another chat template or another pad token. Export it again"
                )

    def compiled(self) -> ArtifactScorer:
        """The same, each layer fused; one compilation serves all layers, lengths and batches."""
        for layer in self.model.model.layers:
            layer.compile(dynamic=True)
        return self

    def encode(self, text: str) -> list[int]:
        """Token ids; tags are single tokens, so parts and whole give the same ids."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """Token ids of many texts, on all cores."""
        return encode_with(self.tokenizer, texts)

    def text_of(self, item: Item) -> str:
        """What the model reads of an item."""
        return render(item).text

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """One score per item, in order; drafts with many reflections are computed once."""
        import torch

        run = _Run(items)
        with torch.inference_mode():
            # a window is tokenised while the device works on the one before; nothing is read back
            # until all are under way
            outputs = [
                self.read(batch)
                for window in windows(run.units)
                for batch in self._batches(run, window)
            ]
            rows = iter(torch.cat(outputs).tolist() if outputs else [])
        for one in run.plans:
            for member, places in zip(one.members, one.places, strict=True):
                score = _as_score(items[member], [next(rows) for _ in places])
                if member in run.cuts:
                    parts = {**score.parts, "cut_tokens": run.cuts[member]}
                    score = replace(score, parts=parts)
                run.found[member] = score
        return [run.found[i] for i in range(len(items))]

    def _batches(self, run: _Run, window: Sequence[Sequence[int]]) -> Iterator[list[Plan]]:
        """Batches of plans of one window; what is too long is cut by the policy or fails."""
        tokens = tokenise((run.units[i] for group in window for i in group), self.encode_all)
        ready = []
        for group in window:
            kept = [i for i in group if n_tokens(run.units[i], tokens) <= self.max_tokens]
            ready += [own for i in group if i not in kept for own in self._cut(run, i)]
            parts = within(kept, run.units, tokens, self.max_tokens)
            ready += [plan(part, run.units, tokens) for part in parts]
        budget = BATCH_TOKENS[self.model.device.type]
        for chosen in by_budget([len(p.pack.ids) for p in ready], budget):
            batch = [ready[k] for k in chosen]
            run.plans += batch
            yield batch

    def _cut(self, run: _Run, index: int) -> list[Plan]:
        """The plan of one item that is too long, shortened; none where the policy forbids it."""
        item = run.items[index]
        shorter = fit(item, self.max_tokens, self._count, self.truncation)
        if shorter is None:
            reason = (
                f"more than {self.max_tokens} tokens; cut it, or set truncation in {META_FILE} to "
                f"one of {', '.join(POLICIES[1:])}"
            )
            run.found[index] = failed(item.id, ItemStatus.TOO_LONG, reason)
            return []
        run.cuts[index] = self._count(item) - self._count(shorter)
        units = {index: render(shorter)}
        return [plan([index], units, tokenise(units.values(), self.encode_all))]

    def _count(self, item: Item) -> int:
        return len(self.encode(self.text_of(item)))

    def read(self, batch: Sequence[Plan]) -> Any:
        """Value and axes (readings, 1 + 4) of all places of a batch, on the device."""
        import torch

        places = [[place for own in p.places for place in own] for p in batch]
        packs = [p.pack for p in batch]
        at = hidden_at(self.model.model, packs, places, self.tokenizer.pad_token_id)
        # the head is in float32 while a model is trained, else as the body
        value = self.model.score(at.to(self.model.score.weight.dtype))
        return torch.cat([value.float(), at.float() @ self.axes.T], 1)


class _Run:
    """What is known about a call's items so far."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.found: dict[int, ItemScore] = {}
        self.units: dict[int, Unit] = {}
        self.plans: list[Plan] = []
        self.cuts: dict[int, int] = {}
        for i, item in enumerate(items):
            problem = unscorable(item)
            if problem is None:
                self.units[i] = render(item)
            else:
                self.found[i] = failed(item.id, *problem)


def _as_score(item: Item, rows: Sequence[Sequence[float]]) -> ItemScore:
    """The last reading is the value; each reading of a reflection is a segment."""
    value, *axes = rows[-1]
    if not math.isfinite(value):
        return failed(item.id, ItemStatus.NOT_FINITE, "the model gave no finite number")
    if not isinstance(item, ReflectionItem):
        return ItemScore(item.id, value)
    parts: dict[str, Any] = dict(zip(HEAD_AXES if len(rows) > 1 else HEAD_AXES[:3], axes,
                                     strict=False))  # fmt: skip
    tags = (CLOSE_TAG, REVISION_END)
    parts["segments"] = [{"end_token": tag, "score": row[0]}
                         for tag, row in zip(tags, rows, strict=False)]  # fmt: skip
    return ItemScore(item.id, value, parts)
