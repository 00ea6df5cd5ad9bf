"""The main job over HTTP: a real OpenAI-compatible server on loopback writes and judges.

    python benchmarks/over_http.py --tasks writingbench --limit 20 --out runs/over-http

llama.cpp serves the embedded model; r2w-eval, in a process of its own, knows nothing but its
address, as model and as judge. All arguments go to r2w-eval. The model cannot judge writing: what
this shows is that nothing is lost, and how many of its verdicts can be read.
"""

from __future__ import annotations

import subprocess
import sys
import time

from r2w_eval.models.embedded import ensure_gguf, silence, start_server


def main(arguments: list[str]) -> int:
    server = start_server(ensure_gguf())
    endpoint = f"{server.listening_address}/v1#smollm2"
    command = ["r2w-eval", "--model", endpoint, "--judge", endpoint, *arguments]
    start = time.monotonic()
    try:
        code = subprocess.run(command, check=False).returncode
    finally:
        print(f"wall time {time.monotonic() - start:.0f} s")
        with silence():
            del server
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
