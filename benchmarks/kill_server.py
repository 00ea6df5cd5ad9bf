"""Three real llama.cpp servers behind one model, one of them killed in mid-run.

In: the embedded SmolLM2 in three processes, `quickstart` with short answers, the quality head as
judge. The same run twice: undisturbed, and with SIGKILL of one server once a third of the answers
is there. Out: answers and verdicts by status, doubled ones, retries, seconds and the number of
equal texts, as JSON; exit code 1 when an answer is missing, doubled or of another status.

    R2W_THREADS=1 python benchmarks/kill_server.py --out FOLDER
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from r2w_eval.config import RunConfig
from r2w_eval.models.embedded import NAME, ensure_gguf, start_server
from r2w_eval.run import evaluate
from r2w_eval.store import write_json


class Server:
    """One llama.cpp server in a process of its own."""

    def __init__(self) -> None:
        argv = [sys.executable, __file__, "--serve"]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()

    def kill(self) -> None:
        self._process.kill()

    @property
    def is_killed(self) -> bool:
        return self._process.poll() == -signal.SIGKILL


def serve() -> None:
    """Print the address and serve until killed."""
    server = start_server(ensure_gguf())
    print(f"{server.listening_address}/v1", flush=True)
    threading.Event().wait()


def kill_after(server: Server, responses: Path, answers: int) -> None:
    """Kill once so many answers are recorded."""
    while not responses.is_file() or responses.read_bytes().count(b"\n") < answers:
        time.sleep(0.05)
    server.kill()


def run(folder: Path, tokens: int, kill_at: int) -> tuple[dict[str, Any], dict[str, str]]:
    """One run on three new servers; what became of it, and the texts by key."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Server()) for _ in range(3)]
        config = RunConfig(
            model=",".join(server.url for server in servers) + f"#{NAME}",
            judge=("r2w-quality",),
            tasks="quickstart",
            gen_kwargs=f"max_tokens={tokens},temperature=0",
            out=str(folder),
            cache=False,
        )
        if kill_at:
            place = folder / "responses.jsonl"
            arguments = (servers[1], place, kill_at)
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
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.serve:
        serve()
    calm, plain = run(args.out / "calm", args.tokens, 0)
    killed, texts = run(args.out / "killed", args.tokens, len(plain) // 3)
    equal = sum(texts.get(key) == text for key, text in plain.items())
    result = {"calm": calm, "killed": killed, "equal_texts": equal}
    print(json.dumps(result, indent=1))
    write_json(args.out / "kill_server.json", result)
    counted = ("answers", "answers_doubled", "answer_statuses", "verdicts", "verdicts_doubled")
    is_whole = all(calm[name] == killed[name] for name in counted)
    return 0 if is_whole and killed["servers_killed"] == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
