"""What the three questions of FACT answer, read upstream's way and strictly.

Each reading gives a `Score` whose parts hold what the next step needs: the facts (a JSON text), the
kept indices, the counts of supported, unsupported and unknown statements.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r2w_eval.judge.extraction import last_list, parse_json
from r2w_eval.judge.parsing import MAX_TEXT_CHARS
from r2w_eval.types import JudgeRequest, JudgeStatus, Mode, Score

RESULTS = ("supported", "unsupported", "unknown")
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
NUMBERS = re.compile(r"\[[\d,\s]+\]")
ESCAPES = ("\\>", "\\<", "\\+", "\\~")


def cut_fences(text: str) -> str:
    """Upstream's cleaning: remove both fence strings anywhere."""
    return text.replace("```json", "").replace("```", "")


def undo_escapes(text: str) -> str:
    """Upstream's repair of four escapes that JSON does not know."""
    for escape in ESCAPES:
        text = text.replace(escape, escape[1])
    return text


def remove_links(fact: str) -> str:
    """A link is reduced to its title.

    >>> remove_links("as [A study](https://a.example) says")
    'as [A study] says'
    """
    return LINK.sub(r"[\1]", fact)


def read_list(text: str) -> list[Any] | None:
    """The whole text as a JSON list, fences aside, else the last list of objects in it; an empty
    list at the end of a text without objects.
    """
    if len(text) > MAX_TEXT_CHARS:
        return None
    plain = cut_fences(text)
    found = parse_json(plain)
    if isinstance(found, list):
        return found
    return [] if "{" not in plain and plain.rstrip().endswith("[]") else last_list(text)


def facts_score(facts: Sequence[tuple[str, str]]) -> Score:
    """Facts with their addresses; `groups` counts them by address, in order of appearance."""
    groups = Counter(url for _, url in facts)
    parts = {"facts": json.dumps(facts, ensure_ascii=False), "groups": list(groups.values())}
    return Score(float(len(facts)), parts=parts)


def kept_score(kept: Sequence[int]) -> Score:
    """The statements (from 1) that stay after deduplication."""
    return Score(float(len(kept)), parts={"kept": list(kept)})


def support_score(results: Sequence[str]) -> Score:
    """Share of supported statements, and all counts. Unknown labels count as judged."""
    counts = Counter(results)
    parts = {
        "supported": counts["supported"],
        "unknown": counts["unknown"],
        "judged": len(results) - counts["unknown"],
    }
    return Score(counts["supported"] / len(results), parts=parts)


def unreadable(why: str, status: JudgeStatus = JudgeStatus.PARSE_ERROR) -> Score:
    """No value."""
    return Score(None, status, why[:300])


def extract_parity(request: JudgeRequest, text: str) -> Score:
    """Undo four escapes that JSON does not know, then read."""
    try:
        found = json.loads(undo_escapes(cut_fences(text)))
        facts = [remove_links(entry["fact"]) for entry in found]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        return unreadable(f"not a list of facts: {type(error).__name__}: {error}")
    urls = [entry.get("url") for entry in found]
    if not all(isinstance(url, str) for url in urls):
        return unreadable("a fact without an address", JudgeStatus.UPSTREAM_LOST)
    return facts_score(list(zip(facts, urls, strict=True)))


def extract_strict(request: JudgeRequest, text: str) -> Score:
    """A list of objects that all have a fact and an address, both texts; unknown escapes are undone
    where there is no list with them.
    """
    found = read_list(text)
    found = read_list(undo_escapes(text)) if found is None else found
    if found is None:
        return unreadable("no JSON list of facts")
    facts = []
    for entry in found:
        fact, url = (entry.get(k) if isinstance(entry, dict) else None for k in ("fact", "url"))
        if not isinstance(fact, str) or not isinstance(url, str):
            return unreadable("an entry without fact and url", JudgeStatus.CRITERIA_MISMATCH)
        facts.append((remove_links(fact), url.strip()))
    return facts_score(facts)


def deduplicate_parity(request: JudgeRequest, text: str) -> Score:
    """Any JSON. Upstream keeps all statements if the list is empty, too long or has a 0, and
    crashes on an index that is not an integer in range.
    """
    try:
        found = json.loads(cut_fences(text))
    except (ValueError, RecursionError) as error:
        return unreadable(f"not JSON: {error}")
    return _kept_as_upstream(found, request.facts["n"])


def _kept_as_upstream(found: Any, n: int) -> Score:
    everything = range(1, n + 1)
    try:
        if not found or 0 in found or len(found) > n:
            return kept_score(everything)
        # a negative index counts from the end, there as here
        return kept_score([everything[index - 1] for index in found])
    except (TypeError, IndexError) as error:
        return unreadable(f"{type(error).__name__}: {error}", JudgeStatus.UPSTREAM_LOST)


def deduplicate_strict(request: JudgeRequest, text: str) -> Score:
    """A list of different indices from 1 to the number of statements, at least one."""
    found, n = parse_json(cut_fences(text)), request.facts["n"]
    lists = NUMBERS.findall(text)
    # of several lists, any could be the judge's reference to a statement
    found = parse_json(lists[0]) if found is None and len(lists) == 1 else found
    if not isinstance(found, list) or not all(type(index) is int for index in found):
        return unreadable("not a JSON list of integers")
    if not found or len(set(found)) < len(found) or not set(found) <= set(range(1, n + 1)):
        reason = f"{str(found)[:100]} are not different indices from 1 to {n}"
        return unreadable(reason, JudgeStatus.OUT_OF_RANGE)
    return kept_score(sorted(found))


def validate_parity(request: JudgeRequest, text: str) -> Score:
    """As many entries as statements, each with a number under `idx`.

    Upstream's statistics crash on an entry without a result.
    """
    try:
        found = json.loads(cut_fences(text))
        for entry in found:
            entry["idx"] - 1
        if len(found) != request.facts["n"]:
            return unreadable(f"{len(found)} entries", JudgeStatus.CRITERIA_MISMATCH)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        return unreadable(f"{type(error).__name__}: {error}")
    results = [entry.get("result", entry) for entry in found]
    if not all(isinstance(result, str) for result in results):
        return unreadable("an entry without a result", JudgeStatus.UPSTREAM_LOST)
    return support_score(results)


def validate_strict(request: JudgeRequest, text: str) -> Score:
    """Exactly one of the three results for each statement, in any order."""
    found = read_list(text)
    if found is None or not all(isinstance(entry, dict) for entry in found):
        return unreadable("no JSON list of results")
    places = [entry.get("idx") for entry in found]
    if sorted(map(str, places)) != sorted(map(str, range(1, request.facts["n"] + 1))):
        reason = f"indices {str(places)[:100]}, wanted 1 to {request.facts['n']}"
        return unreadable(reason, JudgeStatus.CRITERIA_MISMATCH)
    results = [str(entry.get("result")) for entry in found]
    if unknown := set(results) - set(RESULTS):
        reason = f"{sorted(unknown)[0][:40]!r}, not one of {', '.join(RESULTS)}"
        return unreadable(reason, JudgeStatus.UNKNOWN_LABEL)
    return support_score(results)


READERS: Mapping[Mode, Mapping[str, Callable[[JudgeRequest, str], Score]]] = {
    Mode.PARITY: {
        "extract": extract_parity,
        "deduplicate": deduplicate_parity,
        "validate": validate_parity,
    },
    Mode.STRICT: {
        "extract": extract_strict,
        "deduplicate": deduplicate_strict,
        "validate": validate_strict,
    },
}


def parse_parity(request: JudgeRequest, text: str) -> Score:
    """By the stage of the question."""
    return READERS[Mode.PARITY][request.criterion.partition(":")[0]](request, text)


def parse_strict(request: JudgeRequest, text: str) -> Score:
    """By the stage of the question."""
    return READERS[Mode.STRICT][request.criterion.partition(":")[0]](request, text)


def settle(request: JudgeRequest, texts: Sequence[str]) -> Score | None:
    """Three unreadable deduplications keep every statement; nothing else is settled."""
    if request.criterion.startswith("deduplicate:"):
        return kept_score(range(1, request.facts["n"] + 1))
    return None


def ask_again(texts: Sequence[str]) -> bool:
    """Upstream tries three times."""
    return len(texts) < 3
