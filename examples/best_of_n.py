"""Of several answers to each prompt, keep the one that the reward model puts first.

r2w-eval --model URL --tasks quickstart --samples 4 --judge none --out runs/four
python examples/best_of_n.py runs/four best.jsonl
r2w-eval --model best-of-4 --tasks quickstart --responses best.jsonl --judge URL --out runs/best
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from r2w_eval.reward_models.items import WritingItem
from r2w_eval.reward_models.scorer import best_of_n, load_reward

from r2w_eval.config import stored_config
from r2w_eval.run.planning import plan_tasks
from r2w_eval.store import RunFolder


def keep_best(run, output):
    """Write one answer a prompt; a prompt without a usable one has no line."""
    folder, reward = RunFolder.existing(run), load_reward()
    answers = defaultdict(list)
    for response in folder.responses():
        if response.status.cause is None:
            answers[response.sample_id].append(response.answer)
    with Path(output).open("w", encoding="utf-8") as file:
        for plan in plan_tasks(stored_config(folder.manifest(), run)):
            for sample in plan.samples():
                texts = answers[sample.id]
                prompt = sample.messages[-1].content
                items = [WritingItem(str(n), prompt, text) for n, text in enumerate(texts)]
                if items and (best := best_of_n(reward, items)) is not None:
                    file.write(json.dumps({"id": sample.id, "response": texts[best]}) + "\n")


if __name__ == "__main__":
    keep_best(*sys.argv[1:])
