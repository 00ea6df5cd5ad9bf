"""The exchange artefact: a plain `LlamaForSequenceClassification` folder with golden vectors.

Written so that transformers, TRL, verl, vLLM and OpenRLHF load it unchanged (specification: reward
model, section 1). A folder that would be read wrongly somewhere is refused: pad equal to EOS, tags
that are special or more than one token, weights that are not finite, a head that was not saved.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.golden import GOLDEN_ITEMS
from r2w_eval.reward_models.items import (
    Item,
    ItemScore,
    ItemStatus,
    ReflectionItem,
    WritingItem,
    failed,
)
from r2w_eval.reward_models.packing import Segment, collate, lay_out
from r2w_eval.reward_models.render import (
    CLOSE_TAG,
    REVISION_END,
    TAGS,
    messages_of,
    render_unit,
    render_writing,
)
from r2w_eval.reward_models.scorer import unscorable
from r2w_eval.reward_models.trees import HEAD_AXES

from r2w_eval.errors import UsageError
from r2w_eval.hashing import file_hash, text_hash
from r2w_eval.store import write_json

SCHEMA = 1
META_FILE = "r2w_rm.json"
# In a folder of its own: vLLM reads every *.safetensors beside config.json and refuses other keys.
AXES_FILE = "r2w/axes.safetensors"
GOLDEN_TOLERANCE = 1e-4
PACK_TOKENS = 1536
MAX_TOKENS = 8192
SHIPPED = "transformer"


def export_artifact(folder: Path, weights: Path | None = None) -> Path:
    """Merge the adapters into the embedded base and write the folder. Raises UsageError.

    `weights` is a folder of `train rm --transformer`; None takes the shipped adapters.
    """
    from r2w_eval.reward_models.backbone import (
        BackboneConfig,
        add_adapters,
        load_adapter_state,
        load_backbone,
        load_tokenizer,
        merge_adapters,
    )
    from safetensors.torch import load_file, save_file

    source = weights or Path(str(resources.files(__package__).joinpath("weights", SHIPPED)))
    state, config = _read_adapters(source, load_file)
    tokenizer = load_tokenizer()
    backbone = BackboneConfig(**config["backbone"])
    model = load_backbone(backbone, tokenizer)
    add_adapters(model, backbone)
    try:
        load_adapter_state(model, state)
    except (KeyError, RuntimeError) as error:
        raise UsageError(f"{source}: not adapters for {backbone}: {error}. Wrong base?") from error
    merge_adapters(model)
    model.config.value_head_prefix = "score"
    model.config.max_position_embeddings = MAX_TOKENS
    model.config.r2w = {
        "schema": SCHEMA,
        "open_tag": "<reflection>",
        "close_tag": CLOSE_TAG,
        "step_tag_id": tokenizer.convert_tokens_to_ids(CLOSE_TAG),
        "read_position": "next_revision_end",
        "aggregation": "none",
        "input_form": "unit",
        "calibration": {"mean": 0.0, "std": 1.0},
    }
    check(model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _embed_template(folder, tokenizer.chat_template)
    (folder / AXES_FILE).parent.mkdir(exist_ok=True)
    save_file({"axes.weight": state["axes.weight"].float()}, folder / AXES_FILE)
    scorer = ArtifactScorer(folder, model.eval(), tokenizer, state["axes.weight"].float())
    _write_meta(folder, scorer, source)
    return folder


def _read_adapters(source: Path, load_file: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError

    try:
        state = load_file(source / "adapter.safetensors")
        config: dict[str, Any] = json.loads((source / "train.json").read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(
            f"{source}: no adapter weights ({error}). Try: r2w-eval train rm --transformer"
        ) from error
    if bad := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise UsageError(f"{source}: {', '.join(bad[:3])} hold values that are not finite")
    return state, config


def _embed_template(folder: Path, template: str) -> None:
    """The template also inside tokenizer_config.json, for readers older than transformers 5."""
    path = folder / "tokenizer_config.json"
    write_json(path, {**json.loads(path.read_bytes()), "chat_template": template})
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def check(model: Any, tokenizer: Any) -> None:
    """Refuse what some consumer would read wrongly. Raises UsageError."""
    problems = []
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        problems.append("pad must be set and differ from EOS, or the score is read elsewhere")
    if model.config.pad_token_id != tokenizer.pad_token_id:
        problems.append("config and tokenizer name different pad tokens")
    special = set(tokenizer.all_special_tokens)
    for tag in TAGS:
        if tag in special:
            problems.append(f"{tag} is a special token and would vanish in decoding")
        if len(tokenizer(tag, add_special_tokens=False).input_ids) != 1:
            problems.append(f"{tag} is more than one token and cannot be a step tag")
    if model.config.problem_type != "regression" or model.config.num_labels != 1:
        problems.append("expected one label and problem_type regression (no activation)")
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        problems.append("some weights are not finite")
    if not model.score.weight.any():
        problems.append("the head is all zeros: it was not trained or not saved")
    if problems:
        raise UsageError("The artefact is refused: " + "; ".join(problems))


def _write_meta(folder: Path, scorer: ArtifactScorer, source: Path) -> None:
    items = [*GOLDEN_ITEMS]
    golden = []
    for item, score in zip(items, scorer.score(items), strict=True):
        text = scorer.text_of(item)
        golden.append(
            {
                "id": item.id,
                "messages": messages_of(item),
                "text": text,
                "text_sha256": text_hash(text),
                "n_tokens": len(scorer.encode(text)),
                "outcome": score.value,
                "segments": score.parts.get("segments", []),
            }
        )
    write_json(
        folder / META_FILE,
        {
            "schema_version": SCHEMA,
            "segmenter": "tagged",
            "tag_schema": list(TAGS),
            "truncation": "error",
            "read_position": "next_revision_end",
            "calibration": {"mean": 0.0, "std": 1.0},
            "train_run": json.loads((source / "train.json").read_bytes()),
            "adapter_sha256": file_hash(source / "adapter.safetensors"),
            "tolerance": {"float32": GOLDEN_TOLERANCE, "bfloat16": 5e-2},
            "golden": golden,
        },
    )
    card = resources.files(__package__).joinpath("ARTIFACT_CARD.md").read_text("utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


@dataclass(frozen=True)
class ArtifactScorer:
    """Scores items with an exported folder; the raw head, as every other consumer reads it."""

    folder: Path
    model: Any
    tokenizer: Any
    axes: Any

    @property
    def id(self) -> str:
        """The folder's name and the hash of its weights."""
        return f"{self.folder.name}@{file_hash(self.folder / 'model.safetensors')[:12]}"

    def describe(self) -> Mapping[str, Any]:
        """Form, position and limit of reading."""
        return {"input_form": "unit", "read_position": "next_revision_end",
                "truncation": "error", "max_tokens": MAX_TOKENS}  # fmt: skip

    @classmethod
    def load(cls, folder: Path, dtype: str = "float32", device: str = "cpu") -> ArtifactScorer:
        """Load and self-test against the golden vectors. Raises UsageError."""
        import torch
        from safetensors.torch import load_file
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if not (folder / META_FILE).is_file():
            raise UsageError(
                f"--scorer {str(folder)!r}: no {META_FILE}, so this is no exported reward model. "
                f"Try: r2w-eval train rm --export DIR"
            )
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).to(device)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        axes = load_file(folder / AXES_FILE)["axes.weight"].to(model.device)
        scorer = cls(folder, model.eval(), tokenizer, axes)
        scorer.self_test(dtype)
        return scorer

    def self_test(self, dtype: str = "float32") -> None:
        """Compare with the golden vectors. Raises UsageError naming the likely causes."""
        meta = json.loads((self.folder / META_FILE).read_bytes())
        check(self.model, self.tokenizer)
        found = self.score(list(GOLDEN_ITEMS))
        for kept, score in zip(meta["golden"], found, strict=True):
            gap = abs((score.value if score.value is not None else float("nan")) - kept["outcome"])
            if not gap <= meta["tolerance"].get(dtype, 5e-2):
                raise UsageError(
                    f"{self.folder}: golden vector {kept['id']!r} gives {score.value}, recorded "
                    f"{kept['outcome']} (stale_artifact). Likely a head that was not loaded, an "
                    f"activation, another chat template or another pad token. Export it again"
                )

    def encode(self, text: str) -> list[int]:
        """Token ids; tags are single tokens, so parts and whole give the same ids."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def text_of(self, item: Item) -> str:
        """What the model reads of an item."""
        if isinstance(item, ReflectionItem):
            return render_unit(item).text
        return render_writing(item.prompt, item.response)

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """One score per item, in order; drafts with many reflections are computed once."""
        found: dict[int, ItemScore] = {}
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for i, item in enumerate(items):
            problem = unscorable(item) if isinstance(item, ReflectionItem) else None
            if problem is None and len(self.encode(self.text_of(item))) > MAX_TOKENS:
                problem = ItemStatus.TOO_LONG, f"more than {MAX_TOKENS} tokens; cut it yourself"
            if problem is not None:
                found[i] = failed(item.id, *problem)
                continue
            head = render_unit(item).head if isinstance(item, ReflectionItem) else f"\0{i}"
            groups[head].append(i)
        for members in sorted(groups.values(), key=lambda m: len(self.text_of(items[m[0]]))):
            for start in range(0, len(members), 16):
                chosen = members[start : start + 16]
                scores = self._score_pack([items[i] for i in chosen])
                found |= dict(zip(chosen, scores, strict=True))
        return [found[i] for i in range(len(items))]

    def _score_pack(self, items: Sequence[Item]) -> list[ItemScore]:
        """Items with one head (or a single text) in one forward pass."""
        import torch

        segments, reads = _segments(items, self.encode)
        pack = lay_out(segments)
        inputs = {k: v.to(self.model.device) for k, v in
                  collate([pack], self.tokenizer.pad_token_id).items()}  # fmt: skip
        with torch.inference_mode():
            hidden = self.model.model(**inputs).last_hidden_state[0]
            at = hidden[[pack.ends[s] for read in reads for s in read]]
            values = self.model.score(at)[:, 0].float().tolist()
            axes = (at.float() @ self.axes.T).tolist()
        scores, place = [], 0
        for item, read in zip(items, reads, strict=True):
            own = values[place : place + len(read)]
            parts: dict[str, Any] = {}
            if isinstance(item, ReflectionItem):
                names = HEAD_AXES if item.revision is not None else HEAD_AXES[:3]
                parts = dict(zip(names, axes[place + len(read) - 1], strict=False))
                tags = (CLOSE_TAG, REVISION_END)
                parts["segments"] = [{"end_token": t, "score": v}
                                     for t, v in zip(tags, own, strict=False)]  # fmt: skip
            place += len(read)
            value = own[-1]
            good = value == value and abs(value) != float("inf")
            scores.append(
                ItemScore(item.id, value, parts) if good else
                failed(item.id, ItemStatus.NOT_FINITE, "the model gave no finite number")
            )  # fmt: skip
        return scores


def _segments(items: Sequence[Item], encode: Any) -> tuple[list[Segment], list[list[int]]]:
    """Segments of a pack, and per item the segments at whose ends it is read."""
    first = items[0]
    if isinstance(first, WritingItem):
        text = render_writing(first.prompt, first.response)
        return [Segment(tuple(encode(text)), None)], [[0]]
    segments = [Segment(tuple(encode(render_unit(first).head)), None)]
    reads = []
    for item in items:
        assert isinstance(item, ReflectionItem)
        unit = render_unit(item)
        segments.append(Segment(tuple(encode(unit.reflection)), 0))
        read = [len(segments) - 1]
        if unit.revision is not None:
            segments.append(Segment(tuple(encode(unit.revision)), read[0]))
            read.append(len(segments) - 1)
        reads.append(read)
    return segments, reads
