"""The command line as a user meets it: real subprocesses, a real server, faults, kills, secrets."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.store import iter_jsonl

KEY = "planted-secret-3141592653"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("R2W_DATA")}
    return {**kept, "R2W_CACHE": str(tmp_path / "cache"), "R2W_API_KEY": KEY, "COLUMNS": "100"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "r2w_eval", *arguments]


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment, timeout=120, cwd="/"
    )


def job(server: FakeServer, out: Path, writer: str = "gen-5", judge: str = "judge-5") -> list[str]:
    return [
        f"--model={server.base_url}#{writer}",
        f"--judge={server.base_url}#{judge}",
        "--tasks=quickstart",
        f"--out={out}",
        "--no-cache",
        "--quiet",
    ]


def requests(server: FakeServer) -> int:
    return int(server.stats().to_dict()["total"]["requests"])


def rows(path: Path) -> list[dict[str, Any]]:
    return list(iter_jsonl(path))


def test_a_run_writes_everything_and_a_second_one_sends_nothing(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run(environment, *job(server, out))
    assert done.returncode == 0, done.stderr
    assert requests(server) == 24 + 120
    for name in ("run.json", "responses.jsonl", "judgements.jsonl", "results.json", "report.html"):
        assert (out / name).stat().st_size > 0
    before = (out / "results.json").read_bytes()
    again = run({**environment, "PYTHONPROFILEIMPORTTIME": "1"}, *job(server, out))
    assert again.returncode == 0 and requests(server) == 144
    # nothing is new, so nothing is drawn or correlated
    assert not [name for name in ("matplotlib", "scipy.stats") if name in again.stderr]
    assert "0 requests sent, 144 records reused" in again.stdout
    assert (out / "results.json").read_bytes() == before


@pytest.mark.slow
def test_killed_runs_go_on_without_loss_or_double_work(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = ["gen-60", "judge-60"]
    assert run(environment, *job(server, whole, *arguments)).returncode == 0
    server.reset()
    moments = random.Random(4)
    in_flight = 0
    for _ in range(3):
        process = subprocess.Popen(
            command(*job(server, killed, *arguments)), env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        deadline = time.monotonic() + 20
        wanted = requests(server) + moments.randint(5, 45)
        while requests(server) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        in_flight += 64
    done = run(environment, *job(server, killed, *arguments))
    assert done.returncode == 0, done.stderr
    assert requests(server) <= 144 + in_flight
    for name, expected in (("responses.jsonl", 24), ("judgements.jsonl", 120)):
        keys = [row["key"] for row in rows(killed / name)]
        assert len(keys) == len(set(keys)) == expected
    assert (killed / "results.json").read_bytes() == (whole / "results.json").read_bytes()


def hear_interrupts() -> None:
    """A shell starts background jobs deaf to SIGINT, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_reports_what_there_is_and_can_go_on(
    server: FakeServer, environment: dict[str, str], tmp_path: Path, number: int
) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(*job(server, out, "gen-20", "judge-1000")), env=environment, cwd="/",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts,
    )  # fmt: skip
    while requests(server) < 40:
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "same command goes on" in " ".join(stderr.split())
    assert json.loads((out / "results.json").read_bytes())[0]["writer"]["n_expected"] == 24
    assert run(environment, *job(server, out, "gen-20", "judge-1000")).returncode == 0


@pytest.mark.parametrize(
    ("judge", "lost"),
    [
        ("malformed", "parse_error"),
        ("comma", "parse_error"),
        ("linesep", "parse_error"),
        ("score11", "out_of_range"),
        ("empty", "parse_error"),
        ("huge", "parse_error"),
        ("filter", "judge_filtered"),
        ("refusal", "judge_refused"),
        ("http400", "bad_request"),
        ("context", "judge_too_long"),
    ],
)
def test_a_failing_judge_is_a_status_and_never_a_number(
    server: FakeServer, environment: dict[str, str], tmp_path: Path, judge: str, lost: str
) -> None:
    out = tmp_path / "run"
    # half of the questions fail, and half of those fail again when they are asked once more
    spec = f"judge-0+{judge}=0.5+sticky+seed=2"
    done = run(environment, *job(server, out, "gen-0", spec))
    assert done.returncode == 3, done.stderr
    (result,) = json.loads((out / "results.json").read_bytes())
    found = rows(out / "judgements.jsonl")
    failed = [row for row in found if row["score"]["value"] is None]
    assert {row["score"]["status"] for row in failed} == {lost}
    assert ("First loss: " in done.stdout and "HTTP 400" in done.stdout) is (lost == "bad_request")
    assert result["judging"]["failures"] == {lost: len(failed)} and failed
    assert result["judging"]["n_valid"] == 120 - len(failed)
    assert all(1 <= row["score"]["value"] <= 10 for row in found if row not in failed)


@pytest.mark.parametrize("judge", ["fenced", "injection", "reasoning", "think"])
def test_a_readable_judge_loses_nothing(
    server: FakeServer, environment: dict[str, str], tmp_path: Path, judge: str
) -> None:
    done = run(environment, *job(server, tmp_path / "run", "gen-0", f"judge-0+{judge}=1"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("fault", "status", "cause_is_model"),
    [
        ("length", "truncated", False),
        ("empty", "empty", True),
        ("refusal", "refusal", True),
        ("filter", "content_filter", False),
        ("unclosed", "unclosed_think", True),
        ("context", "too_long", True),
    ],
)
def test_each_failure_of_the_writer_has_its_status_and_floor(
    server: FakeServer, environment: dict[str, str], tmp_path: Path, fault: str, status: str,
    cause_is_model: bool,
) -> None:  # fmt: skip
    out = tmp_path / "run"
    run(environment, *job(server, out, f"gen-0+{fault}=0.3+sticky+seed=1"))
    (result,) = json.loads((out / "results.json").read_bytes())
    count = result["writer"]["statuses"][status]
    metrics = {metric["name"]: metric for metric in result["metrics"]}
    assert sum(result["writer"]["statuses"].values()) == 24 and count
    floored = metrics["overall:floor"]["n_scored"] - metrics["overall"]["n_scored"]
    assert floored == (count if cause_is_model else 0)


def test_one_question_is_asked_again_once_and_both_texts_are_kept(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(environment, *job(server, out, "gen-0", "judge-0+malformed=0.2")).returncode in (
        0,
        3,
    )
    asks = [len(row["asks"]) for row in rows(out / "judgements.jsonl")]
    assert set(asks) == {1, 2}


def test_the_key_stands_nowhere(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = [a for a in job(server, out, "gen-0", "judge-0+http400=0.1") if a != "--no-cache"]
    done = run(environment, *arguments)
    assert KEY not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 6
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_another_configuration_is_refused_field_by_field(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(environment, *job(server, out)).returncode == 0
    before = (out / "responses.jsonl").read_bytes()
    done = run(environment, *job(server, out, "gen-6"), "--seed=7")
    assert done.returncode == 2
    assert "seed: 0 -> 7" in done.stderr and "writer.model: 'gen-5' -> 'gen-6'" in done.stderr
    assert (out / "responses.jsonl").read_bytes() == before


def test_a_second_judge_stands_beside_the_first(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(environment, *job(server, out)).returncode == 0
    done = run(environment, "judge", str(out), f"--judge={server.base_url}#judge-0+seed=9")
    assert done.returncode == 0, done.stderr
    assert requests(server) == 144 + 120
    results = json.loads((out / "results.json").read_bytes())
    assert [r["judge"] for r in results] == ["judge-5", "judge-0+seed=9"]
    assert len({r["score_key"] for r in results}) == 2
    assert run(environment, "judge", str(out), "--reparse").returncode == 0
    assert requests(server) == 144 + 120


def test_a_dead_key_stops_at_once(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    done = run(environment, *job(server, tmp_path / "run", "gen-0+http401=1"))
    assert done.returncode == 1 and "R2W_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr and requests(server) <= 64


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks=quikstart", "--model=smollm2"], "Did you mean quickstart"),
        (["--model=smollm3"], "Did you mean smollm2"),
        (["--model=smollm2", "--judge=locale"], "Did you mean local"),
        (["--model=http://127.0.0.1:9/v1#m"], "unreachable"),
        (["--model=/"], "no config.json"),
        ([], "No --model"),
        (["--model=smollm2", "--gen-kwargs=heat=1"], "no such parameter"),
        (["--model=smollm2", "--gen-kwargs=top_p=hot"], "Expected top_p=NUMBER"),
        (["--model=smollm2", "--config=/nowhere.yaml"], "nowhere.yaml"),
        (["--model=smollm2", "--data-dir=/nowhere"], "no such folder"),
        (["--model=smollm2", "--responses=/nowhere"], "No such file"),
        (["--model=smollm2", "--think-tags=x"], "expected OPEN,CLOSE"),
        (["--model=smollm2", "--prices=/nowhere"], "dollars per million"),
        (["judge", "/", "--judge=local"], "not a run folder"),
        (["compare", "/", "/"], "two different runs"),
        (["compare", "/", "/usr"], "not a run folder"),
        (["lits"], "Did you mean list"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_two(
    environment: dict[str, str], arguments: list[str], said: str
) -> None:
    given = arguments if not arguments or arguments[0][0] != "-" else ["run", *arguments]
    done = run(environment, *(given or ["run"]))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_budget_stops_cleanly_and_the_run_goes_on(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("gen-0: {input: 10, output: 10}\njudge-0: {input: 10, output: 10}\n")
    out = tmp_path / "run"
    arguments = [*job(server, out, "gen-0", "judge-0"), f"--prices={prices}"]
    stopped = run(environment, *arguments, "--max-cost=0.3")
    assert stopped.returncode == 4, stopped.stderr
    sent = requests(server)
    assert 0 < sent < 144
    assert run(environment, *arguments, "--max-cost=1000").returncode == 0
    assert requests(server) == 144
    unpriced = run(environment, *job(server, tmp_path / "b"), f"--prices={prices}", "--max-cost=1")
    assert unpriced.returncode == 2 and "needs a price" in unpriced.stderr


def test_settings_come_from_a_file_and_flags_win(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: {server.base_url}#gen-0\njudge: {server.base_url}#judge-0\ntasks: quickstart\n"
        f"limit: 3\ngen-kwargs: temperature=0\n"
    )
    out = tmp_path / "run"
    done = run(environment, "--config", str(config), "--limit=2", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert result["writer"]["n_expected"] == 2
    assert json.loads((out / "run.json").read_bytes())["identity"]["tasks"]["quickstart"][
        "differs"
    ] == ["temperature 0.7 -> 0.0"]
    config.write_text("modle: x\n")
    assert "Did you mean mode or model" in run(environment, "--config", str(config)).stderr


def test_a_dry_run_sends_nothing(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    done = run(environment, *job(server, tmp_path / "run"), "--dry-run")
    assert done.returncode == 0 and requests(server) == 0
    assert "120" in done.stdout and not (tmp_path / "run").exists()


def test_repeats_and_samples_multiply_the_work(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    more = ["--limit=2", "--samples=2", "--repeats=3"]
    refused = run(environment, *job(server, out), *more)
    assert refused.returncode == 2 and "does not sample" in refused.stderr
    done = run(environment, *job(server, out), *more, "--judge-kwargs=temperature=1")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((out / "results.json").read_bytes())
    assert result["noise"]["repeats_per_sample"] == 3 and result["noise"]["n_items"] == 2
    assert len(rows(out / "responses.jsonl")) == 4
    assert len(rows(out / "judgements.jsonl")) == 4 * 5 * 3


def test_the_listing_shows_every_suite(environment: dict[str, str]) -> None:
    done = run(environment, "list")
    assert done.returncode == 0 and "quickstart" in done.stdout and "writingbench" in done.stdout
    path = run(environment, "list", "--path").stdout.strip()
    assert (Path(path) / "quickstart/quickstart.yaml").is_file()


def test_listed_samples_can_be_run_by_id(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    listed = run(environment, "list", "--ids", "quickstart").stdout.splitlines()
    assert len(listed) == 24 and listed[0] == "story-en-1\ten\tstory"
    file = tmp_path / "ids.tsv"
    file.write_text("\n".join(line for line in listed if line.endswith("poem")))
    done = run(environment, *job(server, tmp_path / "poems"), f"--ids=@{file}")
    assert done.returncode == 0, done.stderr
    ids = sorted(row["sample_id"] for row in rows(tmp_path / "poems" / "responses.jsonl"))
    assert ids == ["poem-en-1", "poem-en-2", "poem-zh-1", "poem-zh-2"]
    stored = json.loads((tmp_path / "poems" / "run.json").read_bytes())["config"]["ids"]
    assert sorted(stored) == ids
    refused = run(environment, *job(server, tmp_path / "none"), "--ids=poem-en-1,poem-en-7")
    assert refused.returncode == 2 and "poem-en-7" in refused.stderr
    assert "list --ids quickstart" in refused.stderr and not (tmp_path / "none").exists()


def test_the_cache_is_shared_between_runs_and_can_be_pruned(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    cached = [[a for a in job(server, tmp_path / n) if a != "--no-cache"] for n in ("a", "b")]
    assert run(environment, *cached[0]).returncode == 0
    assert run(environment, *cached[1]).returncode == 0
    assert requests(server) == 144
    assert "144 replies" in run(environment, "cache", "stats").stdout
    assert run(environment, "cache", "prune", "--all").returncode == 0
    assert "0 replies" in run(environment, "cache", "stats").stdout
