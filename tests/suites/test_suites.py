"""Task folders: read safely, refused clearly when broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from r2w_eval.cli.listing import print_listing
from r2w_eval.doctor import State, check_data
from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.paths import tasks_dir
from r2w_eval.suites.suite import load_info, load_module, load_suite, suite_folders


def folder(root: Path, text: str | None = None) -> Path:
    """A task folder `toy` with quickstart's YAML, or with `text`."""
    path = root / "toy"
    path.mkdir()
    source = tasks_dir() / "quickstart"
    (path / "toy.yaml").write_text(
        (source / "quickstart.yaml").read_text("utf-8") if text is None else text
    )
    shutil.copy(source / "utils.py", path)
    return path


def test_a_folder_is_a_suite_by_being_there(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "different.yaml").write_text("")
    assert set(suite_folders(tmp_path)) == {"toy"}
    info = load_info("toy", tmp_path)
    assert info.name == "toy" and info.decoding.max_tokens == 2048
    assert load_suite(info.folder).criteria is not None


def test_an_unknown_suite_has_neighbours(tmp_path: Path) -> None:
    folder(tmp_path)
    with pytest.raises(UnknownName, match="Did you mean toy"):
        load_info("toys", tmp_path)
    with pytest.raises(UnknownName):
        load_info("../toy", tmp_path)


GOOD = (tasks_dir() / "quickstart" / "quickstart.yaml").read_text("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "5", "- a", "task: x", "metadata:\ngeneration_kwargs:\n",
        GOOD.replace("metadata:", "meta:"),
        GOOD.replace("  score_range: [1, 10]\n", ""),
        GOOD.replace("score_range: [1, 10]", "score_range: [1]"),
        GOOD.replace("n_samples: 24", "n_samples: many"),
        GOOD.replace("temperature: 0.7", "heat: 0.7"),
        GOOD.replace("decoding: {temperature: 0.0, max_tokens: 512}", "decoding:"),
        GOOD.replace("sha256: eecac", "md5: eecac"),
        GOOD.replace("languages: [en, zh]", "languages: 5"),
        GOOD + "\nx: !!python/object/apply:os.system ['true']\n",
    ],
)  # fmt: skip
def test_a_broken_task_file_is_named_and_never_runs_code(tmp_path: Path, text: str) -> None:
    folder(tmp_path, text)
    with pytest.raises(UsageError, match=r"toy\.yaml: broken task file"):
        load_info("toy", tmp_path)


def test_a_missing_key_is_named_and_hides_no_other_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path, GOOD.replace("n_samples: 24", ""))
    known = {"toy": tmp_path / "toy", "quickstart": tasks_dir() / "quickstart"}
    monkeypatch.setattr("r2w_eval.suites.suite.suite_folders", lambda root=None: known)
    monkeypatch.setattr("r2w_eval.cli.listing.suite_folders", lambda: known)
    print_listing(None)
    shown = capsys.readouterr()
    assert "toy.yaml: broken task file (the key 'n_samples' is missing)" in shown.err
    assert "quickstart" in shown.out
    broken, fine = check_data(None)
    assert (broken.state, fine.state) == (State.BROKEN, State.OK)


def test_functions_named_in_the_yaml_are_not_called(tmp_path: Path) -> None:
    folder(tmp_path, GOOD + "\nextra: !function os.abort\n")
    assert load_info("toy", tmp_path).name == "toy"


def test_code_without_a_suite_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "utils.py").write_text("SUITE = 5\n")
    with pytest.raises(UsageError, match="no SUITE"):
        load_suite(path)
    with pytest.raises(UsageError, match="no such file"):
        load_module(path / "absent.py", "r2w_eval.tasks.toy.absent")


def test_a_suite_reads_its_own_data_from_its_folder_first(tmp_path: Path) -> None:
    info = load_info("quickstart")
    assert info.data((tmp_path,)).path("samples.jsonl") == info.folder / "samples.jsonl"
