"""Examples by task, which `--help` of every command shows before its options.

`tests/cli/test_help.py` reads each of them with the command's own parser, so that none names an
option that is gone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

EXAMPLES = {
    "r2w-eval": """
# does everything work here? what is there?
r2w-eval doctor
r2w-eval list
# evaluate a checkpoint (`run` need not be typed)
r2w-eval --model ./ckpt --tasks writingbench --judge http://HOST:PORT/v1#NAME
# is the difference between two runs real?
r2w-eval compare runs/a runs/b
# see what the thinking bought
r2w-eval reflect runs/a
""",
    "r2w-eval run": """
# what it will send and cost, before anything is sent
r2w-eval --model ./ckpt --tasks writingbench \\
    --judge http://HOST:PORT/v1#NAME --dry-run
# a checkpoint here, a judge over HTTP; the same command goes on after a stop
r2w-eval --model ./ckpt --tasks writingbench --judge http://HOST:PORT/v1#NAME
# a served model on several addresses, ten samples of each suite of a group
r2w-eval --model http://A:8000/v1,http://B:8000/v1#NAME --tasks creative \\
    --judge http://HOST:PORT/v1#NAME --limit 10
# several judges, combined with each beside
r2w-eval --model ./ckpt --tasks quickstart \\
    --judge http://A:8000/v1#X --judge http://B:8000/v1#Y
# answers from elsewhere
r2w-eval --model my-agent --tasks writingbench --responses answers.jsonl \\
    --judge http://HOST:PORT/v1#NAME
# nothing but this machine, no GPU: a smoke test
r2w-eval --model smollm2 --tasks quickstart --limit 6
""",
    "r2w-eval judge": """
# another judge for answers that exist
r2w-eval judge runs/a --judge http://HOST:PORT/v1#OTHER
# one verdict of all judges that the run holds; asks nobody
r2w-eval judge runs/a --combine median
# read the stored verdicts again, after a mended parser
r2w-eval judge runs/a --reparse
""",
    "r2w-eval judge-check": """
# how many questions it takes
r2w-eval judge-check --judge http://HOST:PORT/v1#NAME --dry-run
# agreement with people, beside trivial rules and texts that must score low
r2w-eval judge-check --judge http://HOST:PORT/v1#NAME
# a short check of one labelled set
r2w-eval judge-check --judge http://HOST:PORT/v1#NAME \\
    --sets lamp_val_pairs --limit 20 --probes 5
""",
    "r2w-eval doctor": """
# what works here, and what to type where it does not
r2w-eval doctor
# is this server up, and does it know the model?
r2w-eval doctor --endpoint http://HOST:PORT/v1#NAME
""",
    "r2w-eval score": """
# reflections or texts, a line each
r2w-eval score --scorer r2w-reward --input items.jsonl --output scores.jsonl
# what trivial readings of the same items say
r2w-eval score --input items.jsonl --output scores.jsonl --baselines
# can the scorer be gamed?
r2w-eval score --scorer r2w-reward --validity
# many items, on the Ray cluster of $RAY_ADDRESS
r2w-eval score --input s3://bucket/in --output s3://bucket/out \\
    --on ray --workers 32
""",
    "r2w-eval serve": """
# for a trainer on this machine
r2w-eval serve --scorer r2w-reward --port 8747
# for other machines; set R2W_SERVE_TOKEN first
r2w-eval serve --scorer r2w-reward --host 0.0.0.0
""",
    "r2w-eval train": """
# what the whole pipeline would take, then the pipeline
r2w-eval train pipeline smoke --dry-run
r2w-eval train pipeline smoke --out smoke
# one stage at a time
r2w-eval train synth --writer http://HOST:PORT/v1#NAME --out synth
r2w-eval train sft --recipe small --traces synth/traces.jsonl --out sft
r2w-eval train rl --recipe small --model sft/model --out rl
# RL over many GPUs
r2w-eval train cluster --model sft/model --out cluster
""",
    "r2w-eval train rm": """
# train the shipped kind of reward model on labelled sets
r2w-eval train rm --reward-data DIR --out reward-model
# the transformer, on a GPU
r2w-eval train rm --reward-data DIR --transformer \\
    --recipe qwen3-0.6b --out reward-model
# on eight GPUs; the same command goes on after a stop
accelerate launch --num_processes 8 -m r2w_eval \\
    train rm --transformer --recipe qwen3-8b
# the folder that transformers, TRL, verl and vLLM read
r2w-eval train rm --export r2w-rm
# can a scorer be gamed?
r2w-eval train rm --validate --scorer r2w-reward
""",
    "r2w-eval train pipeline": """
# memory, tokens, calls and hours of a recipe
r2w-eval train pipeline small --dry-run
# all stages; the same command goes on after a stop
r2w-eval train pipeline smoke --out smoke
# some stages only, two at a time
r2w-eval train pipeline my.yaml --out mine --only sft,rl --jobs 2
""",
    "r2w-eval train synth": """
# traces of a writer and a judge behind a server
r2w-eval train synth --writer http://HOST:PORT/v1#NAME --n 100 --out synth
# traces from professional edits, without any model
r2w-eval train synth --expert --reward-data DIR --out synth
""",
    "r2w-eval train choose": """
r2w-eval train choose --policy sft/model \\
    --judge http://HOST:PORT/v1#NAME --out choice
""",
    "r2w-eval train sft": """
r2w-eval train sft --recipe smoke --traces synth/traces.jsonl --out sft
""",
    "r2w-eval train rl": """
r2w-eval train rl --recipe smoke --model sft/model --out rl
""",
    "r2w-eval train cluster": """
# GRPO with rewards on reflections
r2w-eval train cluster --model sft/model --prompts prompts.jsonl --out cluster
# PPO with a critic
r2w-eval train cluster --model sft/model --out cluster --recipe gae
""",
    "r2w-eval export": """
r2w-eval export runs/a runs/b --parquet results.parquet
""",
    "r2w-eval aggregate": """
# one row a run, task and judge
r2w-eval aggregate results.parquet
# criterion by criterion
r2w-eval aggregate results.parquet --by run,task,judge,criterion
""",
    "r2w-eval compare": """
# paired tests on scores that exist; asks nobody
r2w-eval compare runs/a runs/b
# how many items a difference of 0.2 points takes
r2w-eval compare runs/a runs/b --effect 0.2
# pairs of answers, in both orders
r2w-eval compare runs/a runs/b --judge http://HOST:PORT/v1#NAME
""",
    "r2w-eval list": """
# suites, models, judges, and whether their data is here
r2w-eval list
# source, licence, size and calls of every suite
r2w-eval list --suites
# the suites in stock lm-eval
lm_eval run --include_path "$(r2w-eval list --path)" --tasks writingbench
""",
    "r2w-eval data": """
r2w-eval data fetch writingbench
r2w-eval data verify
""",
    "r2w-eval data fetch": """
# ahead of a run without network
r2w-eval data fetch writingbench hellobench
""",
    "r2w-eval data verify": """
# are the files those that were pinned?
r2w-eval data verify
# do our figures reproduce the published ones?
r2w-eval data verify writingbench --parity
""",
    "r2w-eval cache": """
r2w-eval cache stats
r2w-eval cache prune --older-than-days 7
""",
    "r2w-eval cache stats": """
r2w-eval cache stats
""",
    "r2w-eval cache prune": """
r2w-eval cache prune --older-than-days 7
# remove everything
r2w-eval cache prune --all
""",
    "r2w-eval leaderboard": """
# a site from runs
r2w-eval leaderboard runs/* --out site
# does every number follow from its raw verdicts?
r2w-eval leaderboard verify site
""",
    "r2w-eval leaderboard build": """
r2w-eval leaderboard runs/* --out site
# beside the rows of the package; repeated runs of a system as one row
r2w-eval leaderboard runs/* --published --pool --out site
""",
    "r2w-eval leaderboard verify": """
r2w-eval leaderboard verify site
""",
    "r2w-eval leaderboard submit": """
r2w-eval leaderboard submit runs/a --out submission
""",
    "r2w-eval leaderboard merge": """
r2w-eval leaderboard merge submission --into board-data
""",
    "r2w-eval reflect": """
# segments, links, measures and a viewer of every trace of a run
r2w-eval reflect runs/a
# did the revisions get better? asks the judge
r2w-eval reflect runs/a --judge http://HOST:PORT/v1#NAME
# traces from elsewhere, with tags of their own
r2w-eval reflect traces.jsonl --trace-tags 'draft=<d>,</d>;reflection=<r>,</r>'
""",
    "r2w-eval watch": """
# every checkpoint of a training, as it appears
r2w-eval watch out/checkpoints --tasks quickstart \\
    --judge http://HOST:PORT/v1#NAME
# those that are there, then stop
r2w-eval watch out/checkpoints --once
""",
    "r2w-eval experiment": """
r2w-eval experiment thinking --runs runs/on runs/off
r2w-eval experiment budget --run 1k=runs/a --run 4k=runs/b
""",
    "r2w-eval experiment thinking": """
# both runs, paired on the same prompts
r2w-eval experiment thinking --model http://HOST:PORT/v1#NAME \\
    --tasks writingbench \\
    --judge http://HOST:PORT/v1#X --judge http://HOST:PORT/v1#Y \\
    --off 'extra_body={"chat_template_kwargs": {"enable_thinking": false}}'
# two runs that exist
r2w-eval experiment thinking --runs runs/on runs/off
""",
    "r2w-eval experiment budget": """
# a run a budget, then score against thinking tokens
r2w-eval experiment budget --model http://HOST:PORT/v1#NAME \\
    --judge http://HOST:PORT/v1#J \\
    --arm 1k:gen_kwargs=max_tokens=1024 --arm 4k:gen_kwargs=max_tokens=4096
# runs that exist
r2w-eval experiment budget --run 1k=runs/a --run 4k=runs/b
""",
}


def add_examples(program: click.Group) -> None:
    """Put its examples behind each command's description."""
    for path, command in walk(program, "r2w-eval"):
        if text := EXAMPLES.get(path):
            # \b keeps click from filling the lines
            described = inspect.cleandoc(command.help or "")
            command.help = f"{described}\n\n\b\nExamples:\n{text.strip()}"


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, with what is typed to call them."""
    yield path, command
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from walk(child, f"{path} {name}")
