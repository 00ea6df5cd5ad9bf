"""What a terminal shows: hostile names and messages steer nothing."""

from __future__ import annotations

import io
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from r2w_eval import cli
from r2w_eval.errors import UsageError
from r2w_eval.terminal import escape, open_console, visible

STEERING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
HOSTILE = "a\x1b]0;title\x07b\x1b[2J\x9b2J\r\x00\u202ec[bold]\nd\te"


def test_no_order_reaches_the_terminal() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, color_system=None, highlight=False)
    console.print(escape(HOSTILE), soft_wrap=True)
    assert not set(shown.getvalue()) & set("\x1b\x07\x9b\r\x00\u202e")
    assert "c[bold]\nd" in shown.getvalue()


def test_plain_text_is_left_as_it_is() -> None:
    text = "naïve 雨\n\tline [x] \u200d"
    assert visible(text) == text


@given(st.text())
def test_any_text_keeps_its_length_and_steers_nothing(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text) and visible(shown) == shown
    assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\t\n"]
    assert not [c for c in shown if unicodedata.bidirectional(c) in STEERING]


def test_an_error_that_tells_a_hostile_value_is_shown_without_orders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise UsageError(f"the endpoint said {HOSTILE}")

    monkeypatch.setattr(cli.cli, "main", fails)
    monkeypatch.setattr(sys, "argv", ["r2w-eval"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "the endpoint said a" in told and "\x1b" not in told


@pytest.mark.parametrize(("columns", "width"), [("40", 72), ("100", 100)])
def test_tables_of_figures_keep_their_names_in_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert open_console().width == width
