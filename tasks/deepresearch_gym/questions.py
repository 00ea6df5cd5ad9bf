"""The questions about citations: which claims name a source, and whether their pages support them.

Follows eval_citation_async.py and eval_citation_recall_async.py of
cxcscmu/deepresearch_benchmarking@d5fa708. They are asked in runs with `--pages` only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from r2w_eval.tasks.deepresearch_gym.citations import SUPPORT, URL, names_a_source

from r2w_eval.data import PromptSource
from r2w_eval.judge.extraction import parse_json
from r2w_eval.judge.parsing import last_object
from r2w_eval.suites import JudgingJob
from r2w_eval.types import JudgeRequest, JudgeStatus, Message, Mode, Score
from r2w_eval.web.pages import Page, PageStatus

Claim = tuple[str, list[str]]
PROMPTS = (
    PromptSource(
        "eval_citation.extract",
        "2ce61f9c883113b8a0e32edba74065c6944da6e54d07230f2bc6b77ae060fd29",
        ("eval_citation_async.create_prompt_extractor", "text"),
        "eval_citation_async.py",
        "create_prompt_extractor",
    ),
    PromptSource(
        "eval_citation.check",
        "7012d016bdfb032a49fcae4899dae6b75ee8e5328f79c58456c7b578b569a6a0",
        ("eval_citation_async.create_prompt_citation_checker", "text"),
        "eval_citation_async.py",
        "create_prompt_citation_checker",
    ),
    PromptSource(
        "eval_citation_recall",
        "0c316c4b32c4bc2184123550c7d1c1f7b0686ad7d27a149216914bd0fad27c9d",
        ("eval_citation_recall_async.create_prompt_extractor", "text"),
        "eval_citation_recall_async.py",
        "create_prompt_extractor",
    ),
)


def plan_citations(job: JudgingJob, system: Message) -> list[JudgeRequest]:
    """Two lists of claims; then one check per claim whose pages are available.

    A report without any address needs no call, as upstream has it.
    """
    report = job.answer.text.strip()
    if job.pages is None or not names_a_source(report):
        return []
    requests = []
    for name, template in (("claims", "eval_citation.extract"), ("recall", "eval_citation_recall")):
        text = job.templates[template].replace(**{"<<answer>>": report})
        requests.append(JudgeRequest(name, (system, Message("user", text))))
    for number, (claim, sources) in enumerate(read_claims(job)):
        documents = show_pages([job.pages[url] for url in sources], job.mode)
        if documents:
            text = fill_check(job, claim, documents)
            requests.append(JudgeRequest(f"support:{number}", (system, Message("user", text))))
    return requests


def pages(job: JudgingJob) -> list[str]:
    """The sources of all claims, once they are known."""
    return [url for _, sources in read_claims(job) for url in sources]


def read_claims(job: JudgingJob) -> list[Claim]:
    """The claims with a source that the judge listed, if it has been asked."""
    score = job.done.get("claims", (None, ""))[0]
    if score is None or "claims" not in score.parts:
        return []
    return [(claim, sources) for claim, sources in json.loads(score.parts["claims"]) if sources]


def show_pages(found: Sequence[Page], mode: Mode) -> list[str]:
    """Page texts without addresses. Strict leaves out what could not be read; upstream shows the
    judge an error in its place.
    """
    texts = []
    for page in found:
        if page.status is PageStatus.OK:
            texts.append(f"{page.title}\n\n{page.text}".strip())
        elif mode is Mode.PARITY:
            texts.append(f"**Error for {page.url}:** {page.status}")
    return [URL.sub("", text) for text in texts]


def fill_check(job: JudgingJob, claim: str, documents: Sequence[str]) -> str:
    """The question about one claim and its numbered pages."""
    numbered = "\n\n".join(f"[{n}] {text}" for n, text in enumerate(documents, 1))
    fields = {"<<claim>>": claim, "<<citations_text>>": numbered}
    return job.templates["eval_citation.check"].replace(**fields)


def claims_score(claims: Sequence[Claim]) -> Score:
    """How many claims there are, and which."""
    return Score(float(len(claims)), parts={"claims": json.dumps(claims, ensure_ascii=False)})


def recall_score(claims: Sequence[Claim]) -> Score:
    """Share of the claims that name a source; 0 without any claim."""
    cited = sum(bool(sources) for _, sources in claims)
    return Score(cited / len(claims) if claims else 0.0)


def read_verdict(request: JudgeRequest, text: str, mode: Mode) -> Score:
    """The reply to a citation question."""
    if request.criterion.startswith("support:"):
        return _read_support(text, mode)
    claims = _read_claims(text, mode)
    if claims is None:
        return Score(None, JudgeStatus.PARSE_ERROR, "no list of claims with their sources")
    return claims_score(claims) if request.criterion == "claims" else recall_score(claims)


def settle(request: JudgeRequest, texts: Sequence[str]) -> Score | None:
    """An unreadable list is upstream's empty one; None for what is not settled."""
    if request.criterion == "claims":
        return claims_score([])
    return recall_score([]) if request.criterion == "recall" else None


def _read_support(text: str, mode: Mode) -> Score:
    found = parse_json(text) if mode is Mode.PARITY else last_object(text, "support")
    if not isinstance(found, dict) or "support" not in found:
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON object with the key 'support'")
    label = found["support"]
    if not isinstance(label, str) or label not in SUPPORT:
        reason = f"support {str(label)[:40]!r}, not one of {', '.join(SUPPORT)}"
        return Score(None, JudgeStatus.UNKNOWN_LABEL, reason)
    return Score(SUPPORT[label])


def _read_claims(text: str, mode: Mode) -> list[Claim] | None:
    """All claims; of two with the same number the later counts, as upstream."""
    found = parse_json(text) if mode is Mode.PARITY else last_object(text, "claims")
    entries = found.get("claims") if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(map(_is_claim, entries)):
        return None
    if mode is Mode.STRICT:
        return [(entry["claim"], entry["sources"]) for entry in entries]
    numbered = {entry["claim_id"]: (entry["claim"], entry["sources"]) for entry in entries}
    return list(numbered.values())


def _is_claim(entry: Any) -> bool:
    """Whether an entry has the types of upstream's schema."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("claim"), str):
        return False
    sources = entry.get("sources")
    typed = isinstance(sources, list) and all(isinstance(url, str) for url in sources)
    return typed and type(entry.get("claim_id")) is int
