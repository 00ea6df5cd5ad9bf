"""`--context DIR`: what a writer without tools may read, one text file a sample, put in its prompt.

Answers written closed book, from such files, or brought along are three different things, and the
identity of a score says which (specification: suites, section 0).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from r2w_eval.data import SuiteData
from r2w_eval.errors import DataError
from r2w_eval.paths import packaged_text
from r2w_eval.template import Template
from r2w_eval.types import Message, Sample

ENDINGS = (".txt", ".md")
WHERE = "Expected a folder with one UTF-8 text file per sample, named <sample id>.txt or .md"


def put_in_context(data: SuiteData, sample: Sample) -> Sample:
    """The sample with its file in the last user turn; as it is without the option.

    A sample that has no file lacks its context. Raises DataError for a file that is no text.
    """
    if "context" not in data.inputs:
        return sample
    path = find_context(data.input("context", WHERE), sample.id)
    if path is None:
        return replace(sample, lacks="context")
    *before, last = sample.messages
    content = _template().fill(prompt=last.content, context=_read(path)).rstrip()
    return replace(sample, messages=(*before, Message(last.role, content)))


def find_context(folder: Path, sample_id: str) -> Path | None:
    """The file of a sample. Raises DataError when the folder is none."""
    if not folder.is_dir():
        raise DataError(f"--context {str(folder)!r}: not a folder. {WHERE}")
    candidates = (folder / f"{sample_id}{ending}" for ending in ENDINGS)
    return next((path for path in candidates if path.is_file()), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {error}. {WHERE}") from error


def _template() -> Template:
    return Template("context", packaged_text("prompts/context.txt"))
