"""Writes the seeds of every target's corpus, beside what fuzzing has added."""

from __future__ import annotations

import json
from pathlib import Path

ID = {"key": "a", "task": "t", "sample_id": "s"}
RESPONSE = {**ID, "model": "m", "raw": "", "answer": "", "thinking": None, "status": "ok",
            "usage": {}}  # fmt: skip
JUDGEMENT = {**ID, "response_key": "b", "judge": "j", "criterion": "c", "usage": {}, "asks": [""],
             "score": {"value": 1.0, "status": "valid"}}  # fmt: skip
SEEDS = {
    "verdict": ['{"score": 7, "reason": "ok"}', '```json\n{"score": 3}\n```', '{"verdict": "A>>B"}',
                '{"scores": {"Clarity": 4}, "issues": []}', '{"criteria": [{"name": "x"}]}', "[1]"],
    "suites": ['{"score": 7, "reason": "ok"}', "Score: 8/10", "[[A>B]]", "[[3]]",
               '```json\n[{"id": 1, "verdict": "yes"}]\n```', "Clarity: 12\nOverall: 15", "4"],
    "prose": ["I open with rain. Wait, rain is worn. I should write hail.\n\nHail fell.",
              "先写开头。等等，这里不对，应该改成雪。"],
    "trace": ["<think>\n<draft>a</draft><reflection>b</reflection>\n</think>\n\nc", "<plan>x",
              "<revision>y</revision></draft>"],
    "records": ['{"key": "a"}\n', '{"key": "a"}\n{"key"', "[]\n",
                json.dumps(RESPONSE) + "\n", json.dumps(JUDGEMENT) + "\n",
                '{"model": "m", "identity": {}, "config": {}}'],
    "handlers": ['\x00{"id": "1", "draft": "d", "reflection": "r"}', '\x00{"items": [{"id": 1}]}',
                 '\x01{"input": ["x"]}', '\x02{"query": ["ab"], "prompts": ["a"]}', "\x06[]"],
    "recipe": ["sft:\n  epochs: 1\n", "model: smollm2\njudge: [a, b]\n",
               "task: t\nmetadata: {version: 1, judge: {}, score_range: [1, 10]}\n"
               "generation_kwargs: {max_gen_toks: 5}\n"],
    "reply": ['{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}',
              '{"error": {"message": "no"}}'],
    "request": ['{"input": ["x"]}', '{"query": ["ab"], "prompts": ["a"]}',
                '{"messages": [{"role": "assistant", "content": "x"}]}',
                json.dumps({"id": "1", "draft": "d", "reflection": "r"})],
}  # fmt: skip


def main() -> None:
    for target, texts in SEEDS.items():
        folder = Path(__file__).parent / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(texts):
            (folder / f"seed-{number}").write_text(text)


if __name__ == "__main__":
    main()
