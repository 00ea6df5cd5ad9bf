"""Weight files: named arrays and facts about them as safetensors; same content, same bytes.

safetensors writes several metadata keys in no fixed order, and the identity of a scorer is the hash
of its files: so all facts stand under one key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r2w_eval.errors import DataError

FloatArray = NDArray[np.float64]
FACTS = "r2w"
HEADS_FILE, PROSE_FILE = "process.safetensors", "outcome.safetensors"
FORM_FILE = "form.safetensors"


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[np.floating]], facts: Mapping[str, object]
) -> None:
    """Arrays in the types they have, contiguous or not; facts: what JSON can say."""
    from safetensors.numpy import save_file

    # a transposed view would be written as it lies in memory
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(plain, path, {FACTS: json.dumps(facts, sort_keys=True)})


def read_arrays(path: Path) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    """Arrays as float64, and facts. Raises DataError if missing, damaged or not finite."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            facts = json.loads((file.metadata() or {})[FACTS])
            arrays = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: not a weight file of this version ({error}). Reinstall r2w-eval, or fit "
            f"again: r2w-eval train rm --out DIR"
        ) from error
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise DataError(f"{path}: {', '.join(bad)} hold values that are not finite")
    return arrays, facts
