"""Build time, peak memory, page weight and first paint of a board with many systems.

`generate` writes run folders of made-up answers and verdicts, aggregated by the real summary;
`build` makes the site in a process of its own and measures it; `paint` opens its pages in Chromium
over loopback. Results go to results/leaderboard_scale.json.

    python benchmarks/leaderboard_scale.py generate runs --models 200 --samples 1000
    python benchmarks/leaderboard_scale.py build runs site --models 200
    python benchmarks/leaderboard_scale.py paint site
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import wait_for

from r2w_eval.config import RunConfig
from r2w_eval.hashing import dump_line
from r2w_eval.records.plan import TaskPlan
from r2w_eval.results.summary import RunFacts, summarise
from r2w_eval.run.outputs import strip_performance
from r2w_eval.run.planning import plan_tasks
from r2w_eval.store import RunFolder, write_json
from r2w_eval.types import Judgement, Response, Sample, Score, Usage, WriterStatus

RESULTS = Path(__file__).parent / "results" / "leaderboard_scale.json"
JUDGE = "made-up-judge"
CRITERIA = ("voice", "shape", "detail")
GENRES = ("story", "essay", "letter", "speech", "report", "poem", "review", "script")
TEXT = (
    "the ferry kept its lamp lit long after the harbour had gone to bed and nobody asked the "
    "keeper why because he had once answered"
)
WORDS = TEXT.split()


def make_plan(n_samples: int) -> TaskPlan:
    """A plan of quickstart with `n_samples` made-up prompts."""
    plan = plan_tasks(RunConfig(model="m", tasks="quickstart", judge=(JUDGE,)))[0]
    samples = [
        replace(
            next(iter(plan.samples())),
            id=f"item-{n:04}",
            language=("en", "zh")[n % 2],
            meta={"genre": GENRES[n % len(GENRES)], "criteria": list(CRITERIA)},
        )
        for n in range(n_samples)
    ]
    return replace(plan, samples=lambda: samples)


def write_run(folder: Path, number: int, plan: TaskPlan) -> None:
    """Write a run folder, one response and three verdicts per item; scores fall with `number`."""
    draw = random.Random(number)
    level = 8.5 - 5 * number / 200
    folder.mkdir(parents=True, exist_ok=True)
    run = RunFolder(folder)
    model = f"lab-{number % 17}/writer-{number:03}"
    with run.responses_path.open("wb") as responses, run.judgements_path.open("wb") as verdicts:
        for sample in plan.samples():
            response = make_response(draw, model, sample)
            responses.write(dump_line(response))
            for judgement in make_judgements(draw, response, level):
                verdicts.write(dump_line(judgement))
    writer = {"backend": "http", "model": model}
    judges = {JUDGE: {"score_mode": "text"}}
    write_json(run.manifest_path, make_manifest(model, writer, judges, number))
    results = summarise(run, [plan], RunFacts(writer, 1, judges, 1))
    write_json(run.results_path, [strip_performance(result) for result in results])
    if number == 0:
        write_prompts(folder, plan)


def make_response(draw: random.Random, model: str, sample: Sample) -> Response:
    n = draw.randint(60, 240)
    text = " ".join(draw.choices(WORDS, k=n))
    thinking = " ".join(draw.choices(WORDS, k=n // 3)) if draw.random() < 0.7 else None
    return Response(
        key=f"{model}-{sample.id}",
        task="quickstart",
        sample_id=sample.id,
        model=model,
        raw=text,
        answer=text,
        thinking=thinking,
        status=WriterStatus.OK,
        model_returned=model,
        usage=Usage(prompt_tokens=80, completion_tokens=n + n // 3),
    )


def make_judgements(draw: random.Random, response: Response, level: float) -> list[Judgement]:
    rows = []
    for criterion in CRITERIA:
        value = float(min(10, max(1, round(draw.gauss(level, 1.6)))))
        text = json.dumps({"score": value, "reason": " ".join(draw.choices(WORDS, k=25))})
        rows.append(
            Judgement(
                key=f"{response.key}-{criterion}",
                response_key=response.key,
                task="quickstart",
                sample_id=response.sample_id,
                judge=JUDGE,
                criterion=criterion,
                score=Score(value),
                asks=(text,),
                model_returned=JUDGE,
            )
        )
    return rows


def make_manifest(
    model: str, writer: dict[str, Any], judges: dict[str, Any], number: int
) -> dict[str, Any]:
    return {
        "schema": 1,
        "created": f"2026-01-{1 + number % 28:02}T00:00:00+00:00",
        "r2w_eval": "0.1.0",
        "model": model,
        "smoke_test_judge": False,
        "identity": {
            "seed": 0,
            "samples": 1,
            "repeats": 1,
            "writer": writer,
            "judges": judges,
            "tasks": {"quickstart": {"decoding": {}, "differs": []}},
        },
        "config": {"gen_kwargs": ""},
    }


def write_prompts(folder: Path, plan: TaskPlan) -> None:
    """Write the prompts where a real run has them, in lm-eval's samples file."""
    target = folder / "lm_eval" / "m"
    target.mkdir(parents=True, exist_ok=True)
    with (target / "samples_quickstart_2026-01-01T00-00-00.jsonl").open("wb") as file:
        for sample in plan.samples():
            doc = {"id": sample.id, "prompt": sample.messages[-1].content}
            file.write(dump_line({"doc": doc}))


def generate(folder: Path, models: int, samples: int, distinct: int) -> None:
    """Write run folders; those from `distinct` on are renamed copies, which are as much to read."""
    plan = make_plan(samples)
    for number in range(models):
        target = folder / f"run-{number:03}"
        if (target / "results.json").exists():
            continue
        if number < distinct:
            write_run(target, number, plan)
        else:
            copy_run(folder / f"run-{number % distinct:03}", target, number % distinct, number)


def copy_run(source: Path, target: Path, old: int, new: int) -> None:
    target.mkdir(parents=True, exist_ok=True)
    before = f"lab-{old % 17}/writer-{old:03}".encode()
    after = f"lab-{new % 17}/writer-{new:03}".encode()
    for name in ("run.json", "responses.jsonl", "judgements.jsonl", "results.json"):
        (target / name).write_bytes((source / name).read_bytes().replace(before, after))


def build(runs: Path, site: Path, models: int) -> dict[str, Any]:
    """Build the site in a separate process, and measure it."""
    chosen = [str(path) for path in sorted(runs.iterdir())[:models]]
    command = [sys.executable, "-m", "r2w_eval", "leaderboard", *chosen, "--out", str(site)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    built = wait_for(process)
    assert built.exit_code == 0, f"build ended with {built.exit_code}"
    sizes = {p.relative_to(site).as_posix(): p.stat().st_size for p in site.rglob("*.*")}
    pages = {name: size for name, size in sizes.items() if name.endswith(".html")}
    heaviest = max(pages, key=lambda name: pages[name])
    return {
        "models": len(chosen),
        "wall_s": round(time.monotonic() - started, 1),
        "cpu_s": round(built.cpu_s, 1),
        "peak_rss_mb": round(built.peak_mb),
        "files": len(sizes),
        "site_mb": round(sum(sizes.values()) / 1e6, 1),
        "heaviest_page": heaviest.split("/")[0],
        "heaviest_page_kb": round(pages[heaviest] / 1e3),
        "heaviest_data_kb": round(max(s for n, s in sizes.items() if n.startswith("data/")) / 1e3),
    }


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


def paint(site: Path) -> dict[str, Any]:
    """First contentful paint and load of one page of each kind, best and worst of five."""
    from playwright.sync_api import sync_playwright

    handler = functools.partial(_Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}/"
    firsts = [next((site / kind).glob("*.html")) for kind in ("boards", "models", "versus")]
    pages = ["index.html", *(p.relative_to(site).as_posix() for p in sorted(firsts))]
    found: dict[str, Any] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for page in pages:
            times = []
            for _ in range(5):
                tab = browser.new_page()
                tab.goto(base + page)
                tab.wait_for_timeout(300)
                times.append(
                    tab.evaluate(
                        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
                    )
                )
                tab.close()
            found[page.split("/")[0]] = {
                "best_ms": round(min(times)),
                "worst_ms": round(max(times)),
            }
        browser.close()
    server.shutdown()
    return found


def keep(name: str, figures: object) -> None:
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**stored, name: figures}, indent=1, sort_keys=True) + "\n")
    print(name, json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["generate", "build", "paint"])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=80, help="runs made anew, not copied")
    given = parser.parse_args()
    if given.what == "generate":
        generate(given.folders[0], given.models, given.samples, given.distinct)
    elif given.what == "build":
        keep(f"build_{given.models}", build(given.folders[0], given.folders[1], given.models))
    else:
        keep("first_paint", paint(given.folders[0]))


if __name__ == "__main__":
    main()
