"""The parts of `docs/reliability.md` after the fault matrix, each from one file of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.reliability.process import ROOT, SOAK_TIMEOUT_S

# surviving mutants that no test can tell from the function, by these fields
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
PLACE = ("target", "function", "code", "before", "after")


STOPPED = " at the time limit, which ends it by SIGTERM; the same command goes on"
HOSTILE = Path(__file__).with_name("hostile.yaml")


def hostile() -> Iterator[str]:
    """The table of attacks by text. Raises ValueError where a test that it names is not there."""
    yield (
        "\n## Hostile text\n\nWhat an attack in judged text, names, task files, run folders and "
        "pages does to score, page and process. Each row is a test of the suite.\n\n"
        "| attack | where | what it does | test |\n|---|---|---|---|"
    )
    for row in yaml.safe_load(HOSTILE.read_text("utf-8")):
        path, name = row["test"].split("::")
        if f"def {name}(" not in (ROOT / path).read_text("utf-8"):
            raise ValueError(f"{HOSTILE}: {row['test']} is not there")
        shown = row["attack"].replace("|", "\\|"), row["where"], row["does"], f"`{row['test']}`"
        yield f"| {' | '.join(shown)} |"


def _gaming(rows: list[dict[str, Any]]) -> Iterator[str]:
    scorers = list(dict.fromkeys((row["scorer"], row["reads"]) for row in rows))
    known = {(row["attack"], row["scorer"]): row for row in rows}
    yield (
        "\n## What pleasing gains under each shipped scorer\n\n"
        "`python -m benchmarks.reliability.gaming`. Gains in standard deviations of the honest "
        "scores with 95 % intervals clustered by text; in brackets the share of gamed texts above "
        "the median honest one (an attack that changes nothing stays near 50 %). r2w-rules reads "
        "remarks only; r2w-quality is r2w-reward reading writings. A deed changes the "
        "revision, and leaves the draft no better, but for the remark under its own revision.\n"
    )
    yield f"| attack | {' | '.join(f'{name}, {reads}' for name, reads in scorers)} |"
    yield f"|---|{'---|' * len(scorers)}"
    for attack in dict.fromkeys(row["attack"] for row in rows):
        rows_of = (known.get((attack, name)) for name, _ in scorers)
        shown = ("·" if row is None else _gain(row) for row in rows_of)
        yield f"| {attack} | {' | '.join(shown)} |"
    counts = {(row["scorer"], row["n"] + row["n_refused"]) for row in rows}
    yield "\nn: " + ", ".join(f"{name} {n}" for name, n in sorted(counts)) + "."


def _gain(row: dict[str, Any]) -> str:
    if row["gain"] is None:
        return f"no value ({row['n_refused']} refused)"
    refused = f", {row['n_refused']} refused" if row["n_refused"] else ""
    span = "" if row["low"] is None else f" ({row['low']:+.2f} to {row['high']:+.2f})"
    return f"{row['gain']:+.2f}{span} [{row['above']:.0%}{refused}]"


def _soak(facts: dict[str, Any]) -> Iterator[str]:
    rows = facts["rows"]
    done = max(row["n"] for row in rows)
    quarter = next(row for row in rows if row["n"] >= done / 4)
    last = next(row for row in rows if row["n"] == done)
    planned = f"{facts['planned']:,} judgements planned, 5 % of all attempts faulty"
    end = f"exit code {facts['exit_code']}" + ("" if done >= facts["planned"] else STOPPED)
    yield (
        f"\n## A long run\n\n`python -m benchmarks.reliability.soak --samples "
        f"{facts['samples']} --latency {facts.get('latency', 5)} --connections "
        f"{facts.get('connections', 64)}`{_at(facts)}: {planned}. {facts['requests']:,} requests "
        f"in {rows[-1]['s'] / 60:.0f} minutes on a busy machine, {facts['verdicts']:,} verdicts "
        f"usable, lost: {_counts(facts['lost'])}; {end}. Resident memory {quarter['mb']:.0f} MB at "
        f"a quarter of the verdicts, {last['mb']:.0f} MB at the last one, and at most "
        f"{max(r['mb'] for r in rows):.0f} MB while the results were written; open files at most "
        f"{max(r['files'] for r in rows):.0f}.{_drift(facts)}\n\n"
        f"![verdicts, latency, memory and open files over time](images/soak.svg)"
    )


def _at(facts: dict[str, Any]) -> str:
    return f" (commit {facts['commit']})" if "commit" in facts else ""


def _drift(facts: dict[str, Any]) -> str:
    windows = facts.get("latencies")
    if not windows:
        return ""
    n = max(1, len(windows) // 4)
    first, last = (
        ", ".join(f"{median(row[name] for row in part):.0f}" for name in ("p50", "p95", "p99"))
        for part in (windows[:n], windows[-n:])
    )
    return (
        f" An answer that the server gives after {facts['latency']} ms came after {first} ms (50, "
        f"95 and 99 % of a window, median of the first quarter's windows) and {last} ms (of the "
        f"last quarter's)."
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items()) or "none"


def _serve_soak(facts: dict[str, Any]) -> Iterator[str]:
    rows, wrong = facts["rows"], facts["wrong"]
    settled = rows[min(2, len(rows) - 1)]
    slow = sum(row["p95"] >= 1000 * SOAK_TIMEOUT_S for row in rows) / len(rows)
    told = (
        f"another reply than that of a server in time: {_counts(wrong)} (it gives a request "
        f"{SOAK_TIMEOUT_S} s, which the busy machine passed in {slow:.0%} of the windows by their "
        f"95 % point; "
        f"statuses are not counted apart)"
        if wrong
        else "all answered as documented"
    )
    yield (
        f"\n## `serve` under mixed load\n\n`python -m benchmarks.reliability.serve_soak --minutes "
        f"{facts['minutes']:g} --rate {facts['rate']:g}`{_at(facts)}: arrivals at "
        f"{facts['rate']:g} a second, whatever the server does; {_counts(facts['sent'])}; {told}. "
        f"Honest requests: median "
        f"{facts['p50']:.0f} ms, 95 % under {facts['p95']:.0f} ms, 99 % under {facts['p99']:.0f} "
        f"ms on a busy machine. Resident memory {settled['mb']:.0f} MB after half a minute and "
        f"{rows[-1]['mb']:.0f} MB at the end (peak {max(r['mb'] for r in rows):.0f}); open files "
        f"at most {max(r['files'] for r in rows):.0f}, {rows[-1]['files']:.0f} at the end; "
        f"{facts['tracebacks']} tracebacks in its log, exit code {facts['exit_code']} on "
        f"SIGTERM.\n\n![latency, memory and open files over time](images/serve_soak.svg)"
    )


def _mutation(rows: list[dict[str, Any]]) -> Iterator[str]:
    reasons = {
        tuple(one[name] for name in PLACE): one["why"]
        for one in yaml.safe_load(EQUIVALENT.read_text("utf-8"))
    }
    known = {id(one): reasons.get((row["target"], *(one[n] for n in PLACE[1:])))
             for row in rows for one in row["left"]}  # fmt: skip
    yield (
        "\n## Mutation testing\n\n`python -m benchmarks.reliability.mutation`: one function with "
        "one change, and the tests that reach the changed statement. Killed: a test fails; slow: "
        "no end in ten times the usual processor time; same: survived, and computes the same for "
        "every input that can come (reasons below). Where not all mutants were run, they were "
        f"drawn at random (seed {rows[0]['seed']}).\n\n"
        "| module | tests | mutants | run | killed | slow | same | survived | not reached | "
        "not made |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    sums: Counter[str] = Counter()
    for row in rows:
        n = Counter(row["fates"])
        n["same"] = sum(known[id(one)] is not None for one in row["left"])
        n["survived"] -= n["same"]
        n.update({name: row[name] for name in ("tests", "of", "run")})
        sums.update(n)
        yield f"| `{row['module']}` | {_told(n)} |"
    yield f"| all | {_told(sums)} |"
    for title, is_same in (("Survivors", False), ("Mutants that compute the same", True)):
        yield f"\n### {title}\n"
        own = [(row, one) for row in rows for one in row["left"]
               if (known[id(one)] is not None) == is_same]  # fmt: skip
        yield "\n".join(_mutant(row, one, known[id(one)]) for row, one in own) or "None."


def _told(n: Counter[str]) -> str:
    columns = ("tests", "of", "run", "killed", "slow", "same", "survived", "not reached",
               "not made")  # fmt: skip
    return " | ".join(str(n[name]) for name in columns)


def _mutant(row: dict[str, Any], one: dict[str, Any], reason: str | None) -> str:
    fate = "" if one["fate"] == "survived" else f" ({one['fate']})"
    place = f"{row['target']}, `{one['function']}`, in `{one['code']}`"
    change = f"`{_short(one['before'])}` became `{_short(one['after'])}`"
    return f"* {place}: {change}{fate}" + (f". {reason}" if reason else "")


def _short(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) < 80 else line[:40] + " … " + line[-36:]


def _fuzz(rows: list[dict[str, Any]]) -> Iterator[str]:
    seconds = sorted({row["asked_s"] for row in rows})
    yield (
        f"\n## Fuzzing\n\n`python fuzz/campaign.py --seconds {seconds[-1]}` (atheris, guided by "
        f"coverage; `fuzz/README.md` says what each target reads). A finding is an exception "
        f"that the reader does not state, a score outside its scale, a status of the server "
        f"above 499, or ten seconds for one input. Edges: those that the kept corpus reached at "
        f"the start, and all at the end.\n\n"
        f"| target | seconds | inputs | edges at the start | at the end | corpus | findings |\n"
        f"|---|---|---|---|---|---|---|"
    )
    for row in rows:
        told = [row["seconds"], row["inputs"], row["edges_before"], row["edges"], row["corpus"],
                len(row["findings"])]  # fmt: skip
        yield f"| {row['target']} | {' | '.join(str('?' if n is None else n) for n in told)} |"


SECTIONS: dict[str, Callable[[Any], Iterator[str]]] = {
    "gaming.json": _gaming,
    "soak.json": _soak,
    "serve_soak.json": _serve_soak,
    "mutation.json": _mutation,
    "fuzz.json": _fuzz,
}
