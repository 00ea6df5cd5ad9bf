"""Helpers for all tests: data folders, servers on loopback, whole runs, a browser, a tiny model."""

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

# as the tests were started; while they run, nothing of it is set (see `conftest.own_settings`)
FOLDERS = {
    name: os.environ.get(name) for name in ("R2W_DATA", "R2W_VERIFICATION", "R2W_REWARD_DATA")
}

ScriptedReply = tuple[int, Mapping[str, str], bytes | Callable[[dict[str, str]], bytes]]


def data_folder(variable: str, default: str) -> Path:
    """The folder that an environment variable names, else the one beside the checkout."""
    return Path(FOLDERS[variable] or ROOT.parent / "shared" / default)


def verification_files(part: str, pattern: str) -> list[str]:
    """Names of verification cases, for parameters; empty where the folder is absent."""
    return sorted(
        path.name for path in (data_folder("R2W_VERIFICATION", "verification") / part).glob(pattern)
    )


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files of a folder, or what a subclass makes of a request; logs nothing."""

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serve(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests in a thread; gives the address, without a slash at its end."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class ScriptedServer:
    """A loopback server with scripted replies: (status, headers, body), or a function for the body.

    For what the fake server does not do: echoing keys, odd JSON, dates in headers. The last reply
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

        class Handler(QuietHandler):
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

        self._running = serve(Handler)

    def __enter__(self) -> ScriptedServer:
        self.base_url = f"{self._running.__enter__()}/v1"
        return self

    def __exit__(self, *exc: Any) -> None:
        self._running.__exit__(*exc)


def completion(content: object = "Once.", **fields: object) -> bytes:
    """The body of a chat completion; `fields` replace or add top-level keys."""
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return json.dumps({"model": "m", "choices": [choice], **fields}).encode()


def run_with_fake_server(suite: str, data_dir: Path, out: Path, **settings: Any) -> Any:
    """The result of a run of two samples with the fake server as writer and judge."""
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


@contextmanager
def open_chromium() -> Iterator[Any]:
    """Debian's browser; skips the test if it is missing.

    While it is open this thread has a running event loop, so `asyncio.run` fails.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not here: install Debian's chromium to run this")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


def save_tiny_llama(folder: Path, tokenizer: Any, n_positions: int) -> Path:
    """Save a random two-layer Llama with a tokenizer of the tokenizers library as a checkpoint.

    `<eos>` is token 0; `<think>` and `</think>` are special if the vocabulary has them.
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
