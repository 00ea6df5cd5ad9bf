"""RACE's first stage: the judge removes citations, and what it returns is scored.

Follows utils/clean_article.py: a reply under 100 characters is asked for again (in strict mode that
of a short report may be shorter); a report that is
too long, or stays unreadable, is cleaned in two halves.
"""

from __future__ import annotations

from r2w_eval.suites import JudgingJob
from r2w_eval.types import JudgeRequest, JudgeStatus, Message, Mode, Score

STAGE = "clean"
HALVES = ("clean:1", "clean:2")
MIN_CHARS = 100
SEAM_CHARS = 200
SENTENCE_ENDS = ".?!。？！\n"


def plan_cleaning(job: JudgingJob) -> list[JudgeRequest]:
    """The whole report, and its halves once it is known that the whole does not work.

    Upstream's first pass cleans all reports with the Chinese prompt; parity does the same.
    """
    language = "zh" if job.mode is Mode.PARITY else job.sample.language
    template = job.templates[f"clean_{language}"]
    wanted = {STAGE: job.answer.text}
    if STAGE in job.done and needs_halves(job.done[STAGE][0]):
        wanted.update(zip(HALVES, cut_in_half(job.answer.text, job.mode), strict=True))
    return [
        JudgeRequest(
            name, (Message("user", template.fill(article=text)),), facts={"n_chars": len(text)}
        )
        for name, text in wanted.items()
    ]


def needs_halves(score: Score) -> bool:
    """Whether the judge answered that the text is too long, or never gave a usable one."""
    return score.status is JudgeStatus.TOO_LONG or score.status.is_unreadable


def cut_in_half(article: str, mode: Mode) -> tuple[str, str]:
    """Two parts; the first one ends at a sentence near the middle.

    Upstream starts the second one at the middle all the same, so that what lies between is lost
    (up to 200 characters); strict cuts once.
    """
    middle = len(article) // 2
    end = middle
    for place in range(middle, max(0, middle - SEAM_CHARS), -1):
        if place < len(article) and article[place] in SENTENCE_ENDS:
            end = place + 1
            break
    return article[:end], article[middle if mode is Mode.PARITY else end :]


def read_cleaned(request: JudgeRequest, text: str, mode: Mode) -> Score:
    """The length of a cleaned text; the text itself is the judge's reply.

    Upstream loses every report under 100 characters. Strict wants no more than half of what a
    short report has: that it is short is not the judge's fault.
    """
    n_chars, n_given = len(text.strip()), request.facts.get("n_chars", 2 * MIN_CHARS)
    wanted = MIN_CHARS if mode is Mode.PARITY else max(1, min(MIN_CHARS, n_given // 2))
    if n_chars < wanted:
        return Score(None, JudgeStatus.PARSE_ERROR, f"{n_chars} characters, under {wanted}")
    return Score(float(n_chars))


def cleaned_text(job: JudgingJob) -> str | None:
    """What is scored; None until there is one, or when there will be none."""
    for names in ((STAGE,), HALVES):
        found = [job.done[name] for name in names if name in job.done]
        if len(found) == len(names) and all(score.value is not None for score, _ in found):
            return "".join(text for _, text in found)
    return None
