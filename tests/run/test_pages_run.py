"""Every marked block of the README and the tutorials runs, with the exit code that it states."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT

from r2w_eval.cli import main
from r2w_eval.fakeserver.server import FakeServer

sys.path.append(str(ROOT / "docs"))
import blocks  # noqa: E402

PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if blocks.read_blocks(path.read_text("utf-8"))
)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], tuple[str, int]]:
    """Runs `r2w-eval …` in this process, which imports everything once, and the rest in bash."""
    for name, value in blocks.environment().items():
        monkeypatch.setenv(name, value)

    def run(command: str, folder: Path) -> tuple[str, int]:
        ours, *pipe = command.split(" | ", 1)
        words = shlex.split(ours.replace("\\\n", " "))
        if words[0] != "r2w-eval" or {"&&", ";", ">"} & set(words):
            return blocks.run_shell(command, folder)
        monkeypatch.setattr("sys.argv", words)
        shown = io.StringIO()
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(shown),
            contextlib.redirect_stderr(shown),
            pytest.raises(SystemExit) as stop,
        ):
            main()
        if not pipe:
            return shown.getvalue(), int(stop.value.code or 0)
        piped = subprocess.run(
            pipe[0], shell=True, input=shown.getvalue(), text=True, capture_output=True, cwd=folder
        )
        return piped.stdout + piped.stderr, piped.returncode

    return run


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(
    page: str, tmp_path: Path, own_cache: Path, shell: Callable[[str, Path], tuple[str, int]]
) -> None:
    text = (ROOT / page).read_text("utf-8")
    with FakeServer() as server:
        address = server.base_url.split("/")[2]
        for block, commands in blocks.run_page(text, tmp_path, address, shell):
            codes = [one.exit_code for one in commands]
            wanted = [0] * (len(codes) - 1) + [block.exit_code] if codes else []
            assert codes == wanted, [(one.command, one.output) for one in commands]


def test_blocks_are_found_run_and_rewritten(tmp_path: Path) -> None:
    page = (
        "<!-- file: a.txt -->\n```text\none\n```\n\n<!-- run: exit 3 -->\n"
        "```console\n$ cat a.txt\nold\n$ echo 127.0.0.1:8901 \\\n  two; exit 3\n```\nend\n"
    )
    ran = list(blocks.run_page(page, tmp_path, "127.0.0.1:7"))
    assert [one.exit_code for _, commands in ran for one in commands] == [0, 3]
    new = blocks.rewrite(page, ran)
    assert (
        "$ cat a.txt\none\n$ echo 127.0.0.1:8901 \\\n  two; exit 3\n127.0.0.1:8901 two\n```\nend"
        in new
    )


def test_the_tutorials_have_examples() -> None:
    assert {page for page in PAGES if page.startswith("docs/tutorials/")} >= {
        f"docs/tutorials/{name}.md"
        for name in ("evaluate", "compare", "thinking", "reward", "pipeline")
    }


NOT_RUN_HERE = {
    "r2w-eval train pipeline smoke --out": "minutes; tests/training/pipeline/test_runner.py",
    "r2w-eval data fetch": "the network; tests/test_data.py has it on loopback",
    "r2w-eval judge-check": "minutes of bootstrap; tests/judge_check/test_judge_check.py",
    "r2w-eval train cluster": "reads every benchmark; tests/training/cluster/test_launch.py",
    "r2w-eval serve": "runs until it is stopped; tests/reward_models/serving/test_server.py",
}
JUDGE = f"http://{blocks.ADDRESS}/v1#judge"
STAND_INS = (
    ("--model ./my-checkpoint", f"--limit 2 --model http://{blocks.ADDRESS}/v1#gen --out runs/a"),
    ("http://HOST:PORT/v1#JUDGE", JUDGE),
    ("compare RUN RUN", "compare runs/a runs/b"),
    ("reflect RUN", "reflect runs/a"),
    ("leaderboard runs/*", "leaderboard runs/a runs/b"),
)


@pytest.mark.slow
@pytest.mark.usefixtures("with_data")
def test_the_commands_of_the_readme_run_with_stand_ins(
    tmp_path: Path, own_cache: Path, shell: Callable[[str, Path], tuple[str, int]]
) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    lines = re.findall(r"^(r2w-eval .*?)(?: +# .*)?$", text, re.MULTILINE)
    assert all(any(line.startswith(known) for line in lines) for known in NOT_RUN_HERE)
    writing = f"r2w-eval --model http://{blocks.ADDRESS}/v1#gen --tasks writingbench --limit 2"
    lines.insert(0, f"{writing} --judge {JUDGE} --seed 2 --out runs/b")
    (tmp_path / "items.jsonl").write_text('{"id": "1", "prompt": "A ferry.", "response": "Late."}')
    with FakeServer() as server:
        for line in lines:
            if line.startswith(tuple(NOT_RUN_HERE)):
                continue
            for shown, meant in STAND_INS:
                line = line.replace(shown, meant)
            line = line.replace(blocks.ADDRESS, server.base_url.split("/")[2])
            output, code = shell(line, tmp_path)
            assert code == 0, (line, output)
