"""Benchmark data and official prompts: found, downloaded from the pinned commit, always checked.

Search order: `--data-dir` / `R2W_DATA`, the cache, a download from the upstream repository at the
recorded commit. Every file is compared with its recorded SHA-256 before use. Nothing of a benchmark
is bundled (specification: suites, section 0).
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import http.client
import importlib
import json
import os
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from io import BufferedReader
from pathlib import Path
from typing import Any

import yaml

from r2w_eval.errors import DataAbsent, DataError
from r2w_eval.hashing import file_hash, text_hash
from r2w_eval.paths import cache_dir
from r2w_eval.template import Template

RAW_URL = "https://raw.githubusercontent.com/{repo}/{commit}/{path}"
DOWNLOAD_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class DataFile:
    """One pinned file.

    `path` is None for a file that exists only in prepared data folders; `instead_of` names the
    upstream files that such a file was made from and replaces. `built_by` is a `module:function`
    that makes the bytes from upstream files, told the suite's data and this file.
    """

    name: str
    sha256: str
    repo: str = ""
    commit: str = ""
    path: str | None = None
    instead_of: tuple[str, ...] = ()
    built_by: str = ""

    @property
    def is_public(self) -> bool:
        """Whether the bytes can be had from upstream: as they are, or built from its files."""
        return self.path is not None or bool(self.built_by)

    @property
    def url(self) -> str | None:
        """Where the pinned bytes are published; None when they cannot be downloaded."""
        if self.path is None:
            return None
        return RAW_URL.format(repo=self.repo, commit=self.commit, path=self.path)


class FileState(StrEnum):
    """What `data verify` says of a file."""

    OK = "ok"
    MISSING = "missing"
    ALTERED = "altered"


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Where an official prompt stands: in a prepared `prompts.json`, or in an upstream file.

    `keys` leads through the JSON; `symbol` names the string in `file` (see `read_upstream_text`);
    `sha256` is that of the template text, and decides.
    """

    name: str
    sha256: str
    keys: tuple[str, ...]
    file: str
    symbol: str


@dataclass(frozen=True)
class SuiteData:
    """The data files of one suite, and the files that its user supplies, by option name."""

    suite: str
    files: Mapping[str, DataFile]
    roots: tuple[Path, ...]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    prompts_only: bool = False
    """Whether samples are read for their prompts alone: inputs that are not given are empty."""

    def input(self, name: str, where: str) -> Path:
        """What the user gave with `--<name>`; `where` says how to get it. Raises DataError."""
        if name not in self.inputs and self.prompts_only:
            return Path(os.devnull)
        if name not in self.inputs:
            raise DataError(
                f"{self.suite} needs --{name} FILE (under lm_eval: R2W_{name.upper()}), which is "
                f"not given. {where}"
            )
        path = self.inputs[name]
        if not path.exists():
            raise DataError(f"--{name} {str(path)!r}: no such file or folder. {where}")
        return path

    def find(self, name: str) -> Path | None:
        """The file where it lies, unchecked; None when no root has it."""
        candidates = (root / self.suite / name for root in self.roots)
        return next((path for path in candidates if path.is_file()), None)

    def needed(self) -> list[str]:
        """The files a run would open: a prepared file that is here stands for those it was made
        from.
        """
        prepared = {name: file.instead_of for name, file in self.files.items() if file.instead_of}
        replaced = {old for name, olds in prepared.items() if self.find(name) for old in olds}
        return [name for name in self.files if name not in prepared and name not in replaced]

    def path(self, name: str) -> Path:
        """The checked file, downloaded if need be. Raises DataError."""
        file = self.files[name]
        found = self.find(name) or self.obtain(file)
        actual = file_hash(found)
        if actual != file.sha256:
            advice = (
                f"Remove the file and try: r2w-eval data fetch {self.suite}"
                if file.is_public
                else "Put the original back; or, if the change is yours, write the new hash into "
                "the suite's YAML and raise its version"
            )
            raise DataError(
                f"{found}: altered. sha256 is {actual}, the pinned one is {file.sha256}. {advice}"
            )
        return found

    def obtain(self, file: DataFile) -> Path:
        """Download or build the pinned bytes into the last root (the cache). Raises DataError."""
        if not file.is_public:
            raise DataAbsent(self._missing(file, "it has no download address"))
        target = self.roots[-1] / self.suite / file.name

        def check(path: Path) -> None:
            if (actual := file_hash(path)) != file.sha256:
                raise DataError(f"{file.url or file.built_by} has sha256 {actual}")

        try:
            if file.url is not None:
                download_checked(file.url, target, check)
            else:
                with _replacing(target) as temporary:
                    temporary.write_bytes(_build(file, self))
                    check(temporary)
        except DataError as error:
            raise DataAbsent(self._missing(file, str(error))) from error
        return target

    def read_upstream(self, file: DataFile, path: str) -> bytes:
        """Bytes of another path in the file's repository at its pinned commit. Raises DataError."""
        url = RAW_URL.format(repo=file.repo, commit=file.commit, path=path)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "part"
            download_checked(url, target, lambda _: None)
            return target.read_bytes()

    def state(self, name: str) -> FileState:
        """Whether the file is here and is the pinned one; never downloads."""
        found = self.find(name)
        if found is None:
            return FileState.MISSING
        return FileState.OK if file_hash(found) == self.files[name].sha256 else FileState.ALTERED

    def template(self, source: PromptSource) -> Template:
        """An official prompt, compared with its recorded hash. Raises DataError."""
        prepared = self.find("prompts.json")
        if prepared is not None:
            text = _follow(_read_json(prepared), source.keys, prepared)
        else:
            text = read_upstream_text(self.path(source.file), source.symbol)
        if text_hash(text) != source.sha256:
            raise DataError(
                f"Prompt {source.name} of {self.suite}: sha256 is {text_hash(text)}, the pinned "
                f"one is {source.sha256}. Try: r2w-eval data verify {self.suite}"
            )
        return Template(source.name, text)

    def _missing(self, file: DataFile, why: str) -> str:
        looked = ", ".join(str(root / self.suite) for root in self.roots)
        elsewhere = f"run r2w-eval data fetch {self.suite} where there is a network, or "
        return (
            f"{file.name} (sha256 {file.sha256[:12]}…) of suite {self.suite} is not here: {why}. "
            f"Looked in {looked}. Try: {elsewhere if file.is_public else ''}"
            f"name a folder that has it with --data-dir or R2W_DATA"
        )


def data_roots(data_dir: str | None) -> tuple[Path, ...]:
    """Folders to search, best first; the last one is the cache, which downloads go to."""
    named = data_dir or os.environ.get("R2W_DATA")
    if named and not Path(named).is_dir():
        raise DataError(f"--data-dir {named!r}: no such folder. Try: r2w-eval data fetch SUITE")
    cache = cache_dir() / "data"
    return (Path(named), cache) if named else (cache,)


def open_bytes(path: Path) -> gzip.GzipFile | BufferedReader:
    """A file opened for reading; one named `.gz` is unpacked on the way."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def read_jsonl(path: Path) -> list[Any]:
    """All records; lines end at `\\n` only (texts may hold U+2028). Names the bad line.

    Empty lines are no records. A file named `.gz` is unpacked on the way.
    """
    records = []
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}, line {number}: not JSON ({error}). Expected one JSON object a line"
                ) from error
    return records


def read_upstream_text(path: Path, symbol: str) -> str:
    """A text in an upstream file, by kind: Python source, YAML, or a file that is the text.

    Dots in `symbol` lead into dicts: `SETTINGS.creative.prompt`. Raises DataError.
    """
    if path.suffix == ".py":
        return read_python_string(path, symbol)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return _follow(yaml.safe_load(text), symbol.split("."), path)
    return text


def read_python_string(path: Path, symbol: str) -> str:
    """A module-level string of a Python file, one in a dict of them, or what a function returns.

    Dots lead into dicts; the fields of an f-string stand as `<<expression>>`. Nothing is run.
    Raises DataError.
    """
    name, *keys = symbol.split(".")
    found = _value_at(read_python_value(path, name), keys)
    if isinstance(found, ast.Constant) and isinstance(found.value, str):
        return found.value
    if isinstance(found, ast.JoinedStr):
        return "".join(_unformat(part) for part in found.values)
    raise DataError(f"{path}: no string constant {symbol!r}. Try: r2w-eval data verify")


def read_python_value(path: Path, name: str) -> ast.expr | None:
    """The expression that a module assigns to a name, or that a function of it returns."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            return node.value
        if isinstance(node, ast.FunctionDef) and node.name == name:
            returned = (part.value for part in ast.walk(node) if isinstance(part, ast.Return))
            return next(returned, None)
    return None


def _value_at(node: ast.expr | None, keys: Sequence[str]) -> ast.expr | None:
    """What stands under `keys` in a dict display; None when there is nothing."""
    for key in keys:
        entries = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
        node = next((v for k, v in entries if isinstance(k, ast.Constant) and k.value == key), None)
    return node


def _unformat(part: ast.expr) -> str:
    if isinstance(part, ast.FormattedValue):
        return f"<<{ast.unparse(part.value)}>>"
    return str(part.value) if isinstance(part, ast.Constant) else ""


def _build(file: DataFile, data: SuiteData) -> bytes:
    module, _, function = file.built_by.partition(":")
    build = getattr(importlib.import_module(module), function)
    content: bytes = build(data, file)
    return content


def download_checked(url: str, target: Path, check: Callable[[Path], object]) -> None:
    """Put what an address returns at `target`, atomically, if `check` lets it pass.

    `check` raises for content that is not the expected one. Raises DataError for a failed download.
    """
    with _replacing(target) as temporary:
        try:
            with (
                urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as reply,
                temporary.open("wb") as out,
            ):
                while chunk := reply.read(1 << 20):
                    out.write(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(f"download failed: {error}") from error
        check(temporary)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A file beside `target` that takes its place at the end, unless an error comes first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        temporary = Path(folder) / "download"
        yield temporary
        os.replace(temporary, target)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}). Try: r2w-eval data verify") from error


def _follow(tree: Any, keys: Sequence[str], path: Path) -> str:
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            raise DataError(f"{path}: no key {'.'.join(keys)!r}. Try: r2w-eval data verify")
        tree = tree[key]
    return str(tree)
