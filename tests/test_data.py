"""Data files: found, downloaded, compared with their pinned hash, never used unchecked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import QuietHandler, serve

import r2w_eval.data
from r2w_eval.cli.listing import verify_data
from r2w_eval.data import (
    DataFile,
    FileState,
    PromptSource,
    SuiteData,
    data_roots,
    read_jsonl,
    read_python_string,
    read_upstream_text,
)
from r2w_eval.errors import DataError
from r2w_eval.hashing import text_hash

CONTENT = b'{"a": 1}\n'
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(QuietHandler):
    """Serves /good, a truncated /short, a wrong /other, and 404 for the rest."""

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        body = {"good": CONTENT, "short": CONTENT[:4], "other": b"changed"}.get(name)
        self.send_response(200 if body else 404)
        self.send_header(
            "Content-Length", str(len(CONTENT) if name == "short" else len(body or b""))
        )
        self.end_headers()
        self.wfile.write(body or b"")


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with serve(Handler) as address:
        monkeypatch.setattr(r2w_eval.data, "RAW_URL", f"{address}/{{repo}}/{{commit}}/{{path}}")
        yield


def suite(*roots: Path, path: str | None = None) -> SuiteData:
    file = DataFile("a.jsonl", SHA, "org/repo", "0" * 40, path)
    return SuiteData("s", {"a.jsonl": file}, roots)


def put(root: Path, content: bytes = CONTENT) -> Path:
    (root / "s").mkdir(parents=True, exist_ok=True)
    (root / "s" / "a.jsonl").write_bytes(content)
    return root


def test_the_first_root_that_has_the_file_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "1", put(tmp_path / "2")
    assert suite(first, second).path("a.jsonl") == second / "s" / "a.jsonl"
    put(first)
    assert suite(first, second).path("a.jsonl") == first / "s" / "a.jsonl"


def test_an_altered_file_is_refused_and_both_hashes_are_named(tmp_path: Path) -> None:
    data = suite(put(tmp_path, CONTENT + b" "), path="good")
    assert data.state("a.jsonl") is FileState.ALTERED
    with pytest.raises(DataError, match=f"altered.*{SHA}.*Remove the file.*data fetch s"):
        data.path("a.jsonl")
    # nothing could fetch a file of the suite's own again
    with pytest.raises(DataError, match=f"altered.*{SHA}.*write the new hash into"):
        suite(tmp_path).path("a.jsonl")


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, upstream: None) -> None:
    assert suite(tmp_path).state("a.jsonl") is FileState.MISSING
    with pytest.raises(DataError, match=f"{SHA[:12]}.*{tmp_path}.*Try: name a folder.*R2W_DATA"):
        suite(tmp_path).path("a.jsonl")
    with pytest.raises(DataError, match=f"{tmp_path}.*data fetch s where there is a net.*R2W_DATA"):
        suite(tmp_path, path="absent").path("a.jsonl")


def test_a_download_lands_in_the_last_root(tmp_path: Path, upstream: None) -> None:
    data = suite(tmp_path / "named", tmp_path / "cache", path="good")
    assert data.path("a.jsonl") == tmp_path / "cache" / "s" / "a.jsonl"
    assert data.state("a.jsonl") is FileState.OK


@pytest.mark.parametrize("path", ["short", "other", "absent"])
def test_a_bad_download_leaves_nothing_behind(tmp_path: Path, upstream: None, path: str) -> None:
    with pytest.raises(DataError, match="a.jsonl"):
        suite(tmp_path, path=path).path("a.jsonl")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    put(tmp_path)
    assert suite(tmp_path, path=path).path("a.jsonl")


def test_an_unreachable_source_is_an_error_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(r2w_eval.data, "RAW_URL", "http://127.0.0.1:9/{path}")
    with pytest.raises(DataError, match="download failed"):
        suite(tmp_path, path="good").path("a.jsonl")


def test_records_end_at_newlines_only_and_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"t": "x\u2028y\x85z"}\n{"t": 2}', encoding="utf-8")
    assert [r["t"] for r in read_jsonl(tmp_path / "a")] == ["x\u2028y\x85z", 2]
    (tmp_path / "a").write_bytes(b'{"t": 1}\n{"t": \xff}\n')
    with pytest.raises(DataError, match="line 2"):
        read_jsonl(tmp_path / "a")


def test_verification_tells_replaced_altered_and_missing_files(
    benchmarks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("R2W_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    verify_data(["hellobench_opencompass"], str(benchmarks))
    shown = capsys.readouterr().out
    assert "replaced opencompass_hellobench.py" in shown and "missing" not in shown
    folder = tmp_path / "longbench_write"
    folder.mkdir()
    (folder / "judge.txt").write_text("Score everything 5.")
    with pytest.raises(
        DataError, match=r"ruler: judge\.txt, longwrite_ruler\.jsonl\. Try: r2w-eval"
    ):
        verify_data(["longbench_write_ruler"], str(tmp_path))
    shown = capsys.readouterr().out
    assert "altered  judge.txt" in shown and "missing  longwrite_ruler.jsonl" in shown


def test_a_prompt_is_read_from_python_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "prompt.py"
    path.write_text('raise SystemExit\nother = 1\nx = """Judge {a}."""\n')
    assert read_python_string(path, "x") == "Judge {a}."
    with pytest.raises(DataError, match="no string constant 'y'"):
        read_python_string(path, "y")


def prompt(tmp_path: Path, content: str, sha256: str = "") -> str:
    (tmp_path / "s").mkdir(exist_ok=True)
    (tmp_path / "s" / "prompts.json").write_text(content)
    source = PromptSource("p", sha256 or text_hash("Judge."), ("v2", "user"), "prompt.py", "x")
    return suite(tmp_path).template(source).text


def test_a_prepared_prompt_counts_only_with_its_hash(tmp_path: Path) -> None:
    assert prompt(tmp_path, '{"v2": {"user": "Judge."}}') == "Judge."
    with pytest.raises(DataError, match="sha256"):
        prompt(tmp_path, '{"v2": {"user": "Judge!"}}')


@pytest.mark.parametrize("content", ["{", "[]", '{"v2": "x"}', "{}"])
def test_a_broken_prompt_file_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"prompts\.json"):
        prompt(tmp_path, content)


def test_roots_are_the_named_folder_and_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("R2W_DATA", raising=False)
    monkeypatch.setenv("R2W_CACHE", str(tmp_path / "cache"))
    assert data_roots(None) == (tmp_path / "cache" / "data",)
    assert data_roots(str(tmp_path)) == (tmp_path, tmp_path / "cache" / "data")
    with pytest.raises(DataError, match="no such folder"):
        data_roots(str(tmp_path / "absent"))


def test_prompts_are_read_out_of_upstream_files_by_kind(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text('S = {"x": {"y": "Judge {a}."}, "n": 1, **{}}\n', "utf-8")
    (tmp_path / "a.yaml").write_text('x: {y: "Judge\\u2028{a}."}\n', "utf-8")
    (tmp_path / "a.txt").write_text("Judge {a}.\n", "utf-8")
    assert read_upstream_text(source, "S.x.y") == "Judge {a}."
    assert read_upstream_text(tmp_path / "a.yaml", "x.y") == "Judge\u2028{a}."
    assert read_upstream_text(tmp_path / "a.txt", "") == "Judge {a}.\n"
    for missing in ("S.x", "S.n", "S.x.z", "S.x.y.z", "T.x"):
        with pytest.raises(DataError, match="no string constant"):
            read_upstream_text(source, missing)
    with pytest.raises(DataError, match=r"no key 'x\.z'"):
        read_upstream_text(tmp_path / "a.yaml", "x.z")
