"""Reads the replies to ReportBench's questions."""

from __future__ import annotations

import json
from typing import Any

from r2w_eval.tasks.reportbench.texts import title_key

from r2w_eval.judge.extraction import last_list, outer_braces, parse_json
from r2w_eval.judge.parsing import last_object
from r2w_eval.types import JudgeRequest, JudgeStatus, Mode, Score


def cut_fence(text: str) -> str:
    """Upstream's cleaning: remove a fence around the whole reply."""
    is_fenced = text.startswith("```json") and text.endswith("```")
    return text[len("```json") : -len("```")] if is_fenced else text


def unreadable(why: str) -> Score:
    """No value."""
    return Score(None, JudgeStatus.PARSE_ERROR, why)


def parse(request: JudgeRequest, text: str, mode: Mode) -> Score:
    """By the stage of the question."""
    stage = request.criterion.partition(":")[0]
    if stage == "reference":
        return _read_reference(text, mode)
    if stage == "cited":
        return _read_statements(text, mode)
    if stage == "passage":
        return Score(1.0, parts={"passage": text.strip()})
    return _read_match(text, mode)


def _read_reference(text: str, mode: Mode) -> Score:
    """Upstream reads from the first to the last brace; an unreadable reply means no paper."""
    if mode is Mode.PARITY:
        found = parse_json(outer_braces(text))
        found = found if isinstance(found, dict) else {}
    else:
        found = last_object(text, "is_academic_paper")
    if found is None or (mode is Mode.STRICT and type(found["is_academic_paper"]) is not bool):
        return unreadable("no JSON object that says whether it is a paper")
    title = found.get("title")
    key = title_key(title) if isinstance(title, str) and found.get("is_academic_paper") else None
    parts = {} if key is None else {"title_key": key}
    return Score(float(bool(found.get("is_academic_paper"))), parts=parts)


def _read_statements(text: str, mode: Mode) -> Score:
    found = parse_json(cut_fence(text))
    if mode is Mode.STRICT and not isinstance(found, list):
        found = last_list(text)
    if not isinstance(found, list) or not all(map(_is_statement, found)):
        return unreadable("no JSON list of statements with their url")
    pairs = [[entry["statement"].strip(), entry["url"].strip()] for entry in found]
    parts = {"statements": json.dumps(pairs, ensure_ascii=False)}
    return Score(float(len(pairs)), parts=parts)


def _is_statement(entry: Any) -> bool:
    named = ("statement", "url")
    return isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in named)


def _read_match(text: str, mode: Mode) -> Score:
    found = parse_json(cut_fence(text)) if mode is Mode.PARITY else last_object(text, "match")
    if not isinstance(found, dict) or "match" not in found:
        return unreadable("no JSON object with the key 'match'")
    if mode is Mode.STRICT and type(found["match"]) is not bool:
        return unreadable(f"match is {str(found['match'])[:40]!r}, neither true nor false")
    return Score(float(bool(found["match"])))
