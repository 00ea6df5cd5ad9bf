"""Runs WritingBench's own evaluate_benchmark.py, unmodified, against an OpenAI-compatible server.

In: a folder with the upstream files, an answers file, an address. The script keeps address, key and
model as constants in a class; they are set on the instance here. Its local critic, which needs
vllm, is replaced by an empty class, because importing the script imports it.
"""

from __future__ import annotations

import argparse
import sys
import types


def main() -> None:
    """Judge every answer once per criterion, as the script does: one request at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True, help="folder of evaluate_benchmark.py")
    parser.add_argument("--queries", required=True, help="benchmark_all.jsonl")
    parser.add_argument("--answers", required=True, help="JSON lines: index, response")
    parser.add_argument("--output", required=True)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--judge", required=True)
    options = parser.parse_args()

    critic = types.ModuleType("evaluator.critic")
    critic.__dict__["CriticAgent"] = object
    sys.modules["evaluator.critic"] = critic
    sys.path.insert(0, options.upstream)
    import evaluate_benchmark  # type: ignore[import-not-found]

    agent = evaluate_benchmark.ClaudeAgent(system_prompt=evaluate_benchmark.evaluate_system)
    agent.url = f"{options.base_url}/chat/completions"
    agent.model = options.judge
    evaluate_benchmark.process(
        evaluate_benchmark.EvalAgent(agent),
        options.answers,
        options.output,
        evaluate_benchmark.load_query_criteria(options.queries),
    )


if __name__ == "__main__":
    main()
