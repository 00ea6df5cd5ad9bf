"""Every suite with the embedded model, twice: it writes and judges; and it judges given answers.

The sample of each suite with the least to read goes through generate -> judge -> aggregate, so that
what is shown is that each suite's own chain runs on a real model, and which status a verdict gets
that a model of 135M parameters cannot write. Pages come from a site on loopback that is recorded.

    R2W_THREADS=1 python benchmarks/embedded_suites.py OUT --data-dir DATA
"""

from __future__ import annotations

import argparse
import asyncio
import http.server
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from r2w_eval.config import RunConfig
from r2w_eval.data import data_roots, read_jsonl
from r2w_eval.models.names import EMBEDDED, SMOKE_TEST_JUDGE
from r2w_eval.results.summary import TaskResult
from r2w_eval.run import evaluate
from r2w_eval.run.planning import load_task, plan_tasks
from r2w_eval.store import write_json
from r2w_eval.suites.suite import load_info, load_suite, suite_folders
from r2w_eval.types import Sample

# these verdicts stand on a scale whose labels can be read by probability; others are texts
SCALED = frozenset({"quickstart", "writingbench", "arena_hard_creative", "deepresearch_gym"})
QUESTIONS = {
    "baseline": ("arena_hard_creative", "question_creative_writing.jsonl"),
    "references": ("deepresearch_bench", "query.jsonl"),
}
RESULTS = Path(__file__).parent / "results" / "embedded_suites.json"
PARAGRAPH = (
    "Ferries to the outer islands carried {n} passengers on most winter days, and the timetable "
    "was kept by one harbour master with a pencil. When the pencil wore down he sharpened it with "
    "the knife that he used for bread, and nobody on the quay thought this worth a remark [{n}]"
    "({site}/ferries/{n}). "
)
PAGE = (
    "<html><head><title>Winter ferries, part {n}</title></head><body><article><p>In winter the "
    "ferries carried {n} passengers on most days.</p><p>The harbour master kept the timetable with "
    "a pencil, which he sharpened with his bread knife.</p></article></body></html>"
)


@dataclass(frozen=True)
class Case:
    """One suite with its judge and the further inputs that it needs.

    what: a part of the suite that is judged, if not its usual one
    """

    suite: str
    judge: str
    needs: Mapping[str, Any] = field(default_factory=dict)
    what: str = ""

    @property
    def place(self) -> str:
        """The name of its run folders, and in `--only`."""
        return "-".join(filter(None, (self.suite, self.what)))


@dataclass(frozen=True)
class Row:
    """The outcome of one run. `statuses` counts all verdicts, and the answers that are not ok."""

    suite: str
    sample: str
    answers: str
    judge: str
    headline: str
    value: float | None
    n_scored: int
    n_expected: int
    verdicts: str
    statuses: Mapping[str, int]
    seconds: float


class Site(http.server.BaseHTTPRequestHandler):
    """Serves three pages on loopback; everything else, robots.txt too, is 404."""

    def do_GET(self) -> None:
        number = self.path.removeprefix("/ferries/")
        found = number in ("1", "2", "3")
        content = PAGE.format(n=number).encode() if found else b"no such page"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def open_site() -> Iterator[str]:
    """Run the site; its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()


def list_cases(out: Path, data: Path) -> list[Case]:
    """All suites; DeepResearchGym a second time for its citations."""
    pages = {"pages": f"record:{out / 'pages'}", "pages_allow": "127.0.0.0/8"}
    inputs = {
        option: str(
            write_answers(
                out / f"{option}.jsonl", load_info(suite).data(data_roots(str(data))).path(file)
            )
        )
        for option, (suite, file) in QUESTIONS.items()
    }
    cases = []
    for name in suite_folders():
        info = load_info(name)
        own = {option: inputs[option] for option in info.required_inputs}
        own |= pages if info.pages == "required" else {}
        cases.append(Case(name, SMOKE_TEST_JUDGE if name in SCALED else EMBEDDED, own))
    return [*cases, Case("deepresearch_gym", EMBEDDED, pages, "citations")]


def write_answers(path: Path, questions: Path) -> Path:
    """Write one text of this project as the answer to every question of a suite."""
    text = PARAGRAPH.format(n=1, site="https://ferries.example")
    records = [
        {"id": record.get("uid") or str(record["id"]), "prompt": record["prompt"], "article": text}
        for record in read_jsonl(questions)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def shortest(config: RunConfig) -> str:
    """The id of the sample with the fewest bytes for writer and judge to read."""
    info, suite = load_task(config.tasks)
    samples = suite.load_samples(info.data(data_roots(config.data_dir), config.inputs))
    return min((s for s in samples if not s.lacks), key=n_bytes).id


def n_bytes(sample: Sample) -> int:
    """Bytes of a sample's messages and of its material for the judge."""
    shown = [*(message.content for message in sample.messages), sample.material]
    return len(json.dumps(shown, ensure_ascii=False).encode())


def run_case(case: Case, config: RunConfig) -> Row:
    """One run, measured."""
    started = time.monotonic()
    (result,) = asyncio.run(evaluate(config)).results
    return make_row(case, config, result, time.monotonic() - started)


def make_row(case: Case, config: RunConfig, result: TaskResult, seconds: float) -> Row:
    """A run as a line of the table."""
    head, judging = result.headline, result.judging
    statuses = Counter({"ok": judging.n_valid}) + Counter(judging.failures)
    statuses.update({f"answer {k}": n for k, n in result.writer.statuses.items() if k != "ok"})
    return Row(
        suite=f"{case.suite} {case.what}".strip(),
        sample=config.ids[0],
        answers="given" if config.responses else "written",
        judge=case.judge,
        headline=head.name,
        value=head.value,
        n_scored=head.n_scored,
        n_expected=head.n_expected,
        verdicts=f"{judging.n_valid}/{judging.n_total}",
        statuses=dict(statuses),
        seconds=round(seconds, 1),
    )


def given_answers(config: RunConfig, path: Path, site: str) -> Path:
    """Write a file for `--responses`: three paragraphs with addresses, for each turn."""
    (plan,) = plan_tasks(config)
    text = "\n\n".join(PARAGRAPH.format(n=n, site=site) for n in (1, 2, 3))
    n_turns = plan.suite.n_turns
    answer = {"response": text} if n_turns == 1 else {"turns": [text] * n_turns}
    lines = [json.dumps({"id": sample.id, **answer}) + "\n" for sample in plan.samples()]
    path.write_text("".join(lines), "utf-8")
    return path


def both_ways(case: Case, base: Mapping[str, Any], out: Path, site: str) -> Iterator[Row]:
    """The case with the embedded model as the writer, and with given answers."""
    place = out / case.place
    suite = load_suite(load_info(case.suite).folder)
    # where answers must have 500 characters, they get the room
    n_tokens = 160 if suite.turn_rule.wanted_chars else 48
    base = {**base, "gen_kwargs": f"max_tokens={n_tokens}"}
    shared = {**base, "tasks": case.suite, "judge": (case.judge,), **case.needs}
    shared["ids"] = (shortest(RunConfig(**shared)),)
    config = RunConfig(model=EMBEDDED, out=f"{place}-written", **shared)
    yield run_case(case, config)
    given = str(given_answers(config, Path(f"{place}.jsonl"), site))
    yield run_case(case, RunConfig(model="given", responses=given, out=f"{place}-given", **shared))


def keep(row: Row) -> None:
    """Put the row in the results, in place of an older one of the same run."""
    known = json.loads(RESULTS.read_bytes()) if RESULTS.is_file() else []
    name = (row.suite, row.answers)
    rows = [r for r in known if (r["suite"], r["answers"]) != name] + [asdict(row)]
    rows.sort(key=lambda r: (r["suite"], r["answers"]))
    write_json(RESULTS, rows)


def show(row: Row) -> str:
    """The row in Markdown."""
    statuses = ", ".join(f"{status} {n}" for status, n in row.statuses.items())
    return (
        f"| {row.suite} | {row.sample} | {row.answers} | {row.judge} | "
        f"{row.n_scored}/{row.n_expected} | {row.verdicts} | {statuses} | {row.seconds:.0f} |"
    )


def main() -> None:
    """Run all, print the table, keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--only", default="", help="cases, separated by commas")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    base = {
        "judge_kwargs": "max_tokens=48",
        "data_dir": str(args.data_dir),
        "cache": False,
    }
    only = set(filter(None, args.only.split(",")))
    print(
        "| suite | sample | answers | judge | scored | usable verdicts | verdicts by status | s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with open_site() as site:
        for case in list_cases(args.out, args.data_dir):
            if only and case.place not in only:
                continue
            for row in both_ways(case, base, args.out, site):
                keep(row)
                print(show(row), flush=True)


if __name__ == "__main__":
    main()
