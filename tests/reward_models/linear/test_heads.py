"""Heads and the outcome regression: they learn what is there, and survive storage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.items import ReflectionItem, WritingItem
from r2w_eval.reward_models.linear.arrays import read_arrays, write_arrays
from r2w_eval.reward_models.linear.features import Features
from r2w_eval.reward_models.linear.heads import (
    HEADS,
    FitConfig,
    fit,
    load_heads,
    save_heads,
    squash,
)
from r2w_eval.reward_models.linear.prose import fit_prose, load_prose, save_prose
from safetensors.numpy import save_file

from r2w_eval.errors import DataError


def reflection_row(i: int, good: bool) -> Row:
    item = ReflectionItem(str(i), "", "d", "r")
    label = 1.0 if good else -1.0
    kind = "pos" if good else "neg_x"
    return Row(str(i), "s", "MIT", f"g{i // 2}", "en", kind, f"p{i // 2}", item,
               {"relevance": label, "constructiveness": label})  # fmt: skip


ROWS = [reflection_row(i, i % 2 == 0) for i in range(200)]
FOUND = [Features({"signal": float(i % 2 == 0), "noise": float(i % 7)}, ("r:a", f"r:{i % 2}"))
         for i in range(200)]  # fmt: skip


def test_heads_learn_a_signal_and_say_nothing_of_axes_without_labels() -> None:
    heads = fit(ROWS, FOUND)
    values = heads.values(FOUND)
    column = {name: i for i, name in enumerate(HEADS)}
    for name in ("relevance", "value"):
        assert values[::2, column[name]].min() > values[1::2, column[name]].max()
    assert np.all(np.abs(values) <= 1)


def test_storage_gives_the_same_values(tmp_path: Path) -> None:
    heads = fit(ROWS, FOUND)
    save_heads(heads, tmp_path / "h.safetensors", {"data": "abc"})
    again, facts = load_heads(tmp_path / "h.safetensors")
    assert facts == {"data": "abc"}
    assert again.names == heads.names
    np.testing.assert_allclose(again.logits(FOUND), heads.logits(FOUND), atol=0.02)


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    """An identity is the hash of a file; safetensors alone writes metadata in no fixed order."""
    path, written = tmp_path / "a.safetensors", set()
    for _ in range(8):
        write_arrays(path, {"b": np.ones(3), "a": np.eye(2).T}, {"z": [1], "y": 2, "x": "3"})
        written.add(path.read_bytes())
    assert len(written) == 1
    arrays, facts = read_arrays(path)
    assert arrays["a"].tolist() == np.eye(2).tolist()
    assert facts == {"x": "3", "y": 2, "z": [1]}


def test_calibration_uses_the_held_out_rows() -> None:
    heads = fit(ROWS, FOUND, FitConfig(), calibrate=range(100, 200))
    assert heads.slope[HEADS.index("value")] != 1.0


def test_dropped_features_have_no_weight() -> None:
    heads = fit(ROWS, FOUND, FitConfig(dropped=("signal", "r:")))
    assert "signal" not in heads.names
    assert np.abs(heads.values(FOUND)[:, 0]).max() < 0.2


def test_a_damaged_or_infinite_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    path.write_bytes(b"no weights")
    with pytest.raises(DataError, match="not a weight file"):
        load_heads(path)
    with pytest.raises(DataError, match="not a weight file"):
        load_heads(tmp_path / "absent")
    save_file({"mean": np.ones(1, np.float32)}, path)
    with pytest.raises(DataError, match=r"not a weight file of this version.*train rm --out"):
        load_heads(path)
    write_arrays(path, {"mean": np.array([np.nan], np.float32)}, {})
    with pytest.raises(DataError, match="not finite"):
        load_heads(path)


def test_squash_is_odd_and_bounded() -> None:
    assert squash(np.array([-800.0, 0.0, 800.0])).tolist() == [-1.0, 0.0, 1.0]


def writing_row(i: int, good: bool, source: str = "s") -> Row:
    text = ("plain river stone " if good else "tapestry of shimmering fate ") * 3 + f"n{i}"
    return Row(f"{source}{i}", source, "MIT", f"g{i}", "en", "draft", f"p{i // 2}",
               WritingItem(str(i), "", text), {"outcome": 0.5 if good else -0.5})  # fmt: skip


def test_prose_learns_words_and_survives_storage(tmp_path: Path) -> None:
    prose = fit_prose([writing_row(i, i % 2 == 0) for i in range(60)])
    texts = ["a plain river stone", "the tapestry of fate"]
    first, second = prose.outcomes(texts)
    assert first > second
    save_prose(prose, tmp_path / "p.safetensors", {})
    again = load_prose(tmp_path / "p.safetensors")
    np.testing.assert_allclose(again.outcomes(texts), [first, second], atol=2e-3)


def test_the_level_of_a_set_stays_out_of_the_weights() -> None:
    """A set that is rated high as a whole lends no merit to its words."""
    rows = [writing_row(i, i % 2 == 0) for i in range(60)]
    high = [
        Row(f"h{i}", "high", "MIT", f"h{i}", "en", "draft", f"h{i}",
            WritingItem(f"h{i}", "", f"zebra harbour lamp {i % 5}"), {"outcome": 0.9})
        for i in range(60)
    ]  # fmt: skip
    prose = fit_prose([*rows, *high])
    assert abs(prose.outcomes(["zebra harbour lamp"])[0]) < 0.1
