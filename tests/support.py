"""Where test data lies, a scripted server, a browser. Importable by every test (`pythonpath`)."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = Path("/usr/bin/chromium")
CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"

ScriptedReply = tuple[int, Mapping[str, str], bytes | Callable[[dict[str, str]], bytes]]


def data_folder(variable: str, default: str) -> Path:
    """The folder that an environment variable names, else the one beside the checkout."""
    return Path(os.environ.get(variable) or ROOT.parent / "shared" / default)


def verification_files(part: str, pattern: str) -> list[str]:
    """Names of verification cases, for parameters; empty where the folder is absent."""
    return sorted(
        path.name for path in (data_folder("R2W_VERIFICATION", "verification") / part).glob(pattern)
    )


class ScriptedServer:
    """A loopback server whose replies are told one by one: (status, headers, body) or a function.

    For what the fake server does not do: quoting keys, odd JSON, dates in headers. The last reply
    repeats.
    """

    def __init__(self, *replies: ScriptedReply) -> None:
        self.replies = list(replies)
        self.seen: list[dict[str, str]] = []
        self.times: list[float] = []
        self.models: list[str] = []
        self.list_status = 200
        self.on_body: Callable[[dict[str, Any]], object] = lambda body: None
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                script.on_body(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                script.seen.append(dict(self.headers))
                script.times.append(time.monotonic())
                place = min(len(script.seen), len(script.replies)) - 1
                status, headers, body = script.replies[place]
                content = body(dict(self.headers)) if callable(body) else body
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                content = json.dumps({"data": [{"id": name} for name in script.models]}).encode()
                self.send_response(script.list_status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def completion(content: object = "Once.", **fields: object) -> bytes:
    """The body of a chat completion; `fields` replace or add top-level keys."""
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return json.dumps({"model": "m", "choices": [choice], **fields}).encode()


def run_with_fake_server(suite: str, data_dir: Path, out: Path, **settings: Any) -> Any:
    """A run of two samples with the fake server as writer and judge; returns the task's result."""
    import asyncio

    from r2w_eval.config import RunConfig
    from r2w_eval.fakeserver.server import FakeServer
    from r2w_eval.run import evaluate

    with FakeServer() as server:
        chosen = {
            "model": f"{server.base_url}#gen-0",
            "judge": (f"{server.base_url}#judge-0",),
            "limit": 2,
            **settings,
        }
        config = RunConfig(tasks=suite, data_dir=str(data_dir), out=str(out), **chosen)
        return asyncio.run(evaluate(config)).results[0]


def run_recorded(suite: str, answers: dict[str, str], data_dir: Path, out: Path) -> Any:
    """As `--responses`: the fake judge on given answers, and no writer."""
    path = out.parent / f"{out.name}-answers.jsonl"
    lines = [json.dumps({"id": name, "response": text}) for name, text in answers.items()]
    path.write_text("\n".join(lines), "utf-8")
    chosen = {"model": "mine", "responses": str(path), "only_recorded": True, "limit": None}
    return run_with_fake_server(suite, data_dir, out, **chosen)


@contextmanager
def open_chromium() -> Iterator[Any]:
    """Debian's browser; the test is skipped where there is none.

    While it is open this thread has a running event loop, so that `asyncio.run` fails.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not here: install Debian's chromium to run this")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


def save_tiny_llama(folder: Path, tokenizer: Any, n_positions: int) -> Path:
    """A random Llama of two layers with a tokenizer of the tokenizers library, as a checkpoint.

    `<eos>` is token 0; `<think>` and its end are special where the vocabulary has them.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", chat_template=CHAT
    )
    marks = [mark for mark in ("<think>", "</think>") if mark in tokenizer.get_vocab()]
    fast.add_special_tokens({"additional_special_tokens": marks})
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=n_positions,
        eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
