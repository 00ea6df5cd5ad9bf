"""What a writer may read goes into its prompt, file by file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from r2w_eval.data import SuiteData
from r2w_eval.errors import DataError
from r2w_eval.suites.context import put_in_context
from r2w_eval.types import Message, Sample

SAMPLE = Sample("t", "7", (Message("system", "Be kind."), Message("user", "Why?")))


def data(**inputs: Path) -> SuiteData:
    return SuiteData("t", {}, (), inputs)


def test_without_the_option_nothing_changes() -> None:
    assert put_in_context(data(), SAMPLE) is SAMPLE


@pytest.mark.parametrize("ending", [".txt", ".md"])
def test_the_file_of_the_sample_stands_in_the_last_turn(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"7{ending}").write_bytes("\ufeffBraces {prompt} \u2028 stay.".encode())
    system, user = put_in_context(data(context=tmp_path), SAMPLE).messages
    assert system == SAMPLE.messages[0]
    assert user.content.startswith("Why?") and "Braces {prompt} \u2028 stay." in user.content


def test_a_sample_without_a_file_lacks_its_context(tmp_path: Path) -> None:
    assert put_in_context(data(context=tmp_path), SAMPLE) == replace(SAMPLE, lacks="context")


def test_wrong_encodings_files_and_absent_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "7.txt").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(DataError, match=r"7\.txt: .*utf-8.*UTF-8 text file per sample"):
        put_in_context(data(context=tmp_path), SAMPLE)
    with pytest.raises(DataError, match="not a folder"):
        put_in_context(data(context=tmp_path / "7.txt"), SAMPLE)
    with pytest.raises(DataError, match="no such file or folder"):
        put_in_context(data(context=tmp_path / "absent"), SAMPLE)
