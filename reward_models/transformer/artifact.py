"""The exchange artefact: a plain `LlamaForSequenceClassification` folder with golden vectors.

Written so that transformers, TRL, verl, vLLM and OpenRLHF load it unchanged (specification: reward
model, section 1). A folder that would be read wrongly somewhere is refused: pad equal to EOS, tags
that are special or more than one token, weights that are not finite, a head that was not saved.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.transformer.golden import GOLDEN_ITEMS
from r2w_eval.reward_models.transformer.render import CLOSE_TAG, TAGS, messages_of
from r2w_eval.reward_models.transformer.scorer import (
    AXES_FILE,
    MAX_TOKENS,
    META_FILE,
    ArtifactScorer,
)

from r2w_eval.errors import UsageError
from r2w_eval.hashing import file_hash, text_hash
from r2w_eval.paths import packaged_text
from r2w_eval.store import write_json

SCHEMA = 1
GOLDEN_TOLERANCE = 1e-4
SHIPPED = "transformer"


def export_artifact(folder: Path, weights: Path | None = None, truncation: str = "error") -> Path:
    """Merge the adapters into the embedded base and write the folder. Raises UsageError.

    `weights` is a folder of `train rm --transformer`; None takes the shipped adapters. `truncation`
    is what the folder's scorer does with long items (`truncation.py`).
    """
    from safetensors.torch import save_file

    source = weights or shipped_weights()
    model, tokenizer, axes = load_merged(source)
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
    save_file({"axes.weight": axes}, folder / AXES_FILE)
    scorer = ArtifactScorer(folder, model, tokenizer, axes, truncation)
    _write_meta(folder, scorer, source)
    return folder


def shipped_weights() -> Path:
    """The folder of the shipped adapters."""
    return Path(str(resources.files("r2w_eval.reward_models") / "weights" / SHIPPED))


def load_shipped(truncation: str = "error") -> ArtifactScorer:
    """The shipped adapters merged into their base: on a GPU in bfloat16 where there is one, else in
    float32. Raises UsageError.
    """
    import torch
    from r2w_eval.reward_models.transformer.backbone import ADAPTERS

    folder = shipped_weights()
    model, tokenizer, axes = load_merged(folder)
    if torch.cuda.is_available():
        model, axes = model.to("cuda", torch.bfloat16), axes.to("cuda")
    return ArtifactScorer(folder, model, tokenizer, axes, truncation, weights=ADAPTERS)


def load_merged(source: Path) -> tuple[Any, Any, Any]:
    """Model with the adapters merged into its base, tokenizer, axis heads (4, width) in float32.

    `source` is a folder of `train rm --transformer`. Raises UsageError.
    """
    from r2w_eval.reward_models.transformer.backbone import (
        BackboneConfig,
        add_adapters,
        base_of,
        load_adapters,
        load_backbone,
        load_tokenizer,
        merge_adapters,
        read_adapters,
    )

    state, config = read_adapters(source)
    backbone = BackboneConfig(**config["backbone"])
    tokenizer = load_tokenizer(base_of(backbone))
    model = load_backbone(backbone, tokenizer)
    add_adapters(model, backbone)
    axes = load_adapters(model, backbone, state, source)
    merge_adapters(model)
    return model.eval(), tokenizer, axes


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
            "truncation": scorer.truncation,
            "read_position": "next_revision_end",
            "calibration": {"mean": 0.0, "std": 1.0},
            "train_run": json.loads((source / "train.json").read_bytes()),
            "adapter_sha256": file_hash(source / "adapter.safetensors"),
            "tolerance": {"float32": GOLDEN_TOLERANCE, "bfloat16": 5e-2},
            "golden": golden,
        },
    )
    card = packaged_text("ARTIFACT_CARD.md", __package__)
    (folder / "README.md").write_text(card, encoding="utf-8")
