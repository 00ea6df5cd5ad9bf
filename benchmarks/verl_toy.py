"""verl's own trainer on the CPU, at toy size: GRPO as verl has it and with our local term, and PPO.

In: the eleven-word policy and the scorer of our tests, `training/cluster/verl/*.yaml`, some sizes.
`python -m verl.trainer.main_ppo` runs for real: Ray, transfer queue, agent loop, reward loop, FSDP
engine, optimiser, checkpoint; for PPO verl's critic and its `gae`. Out: what each step logged, how
far weights moved from the start, and how far the variants ended from each other, as JSON. Needs
verl here: pip install 'r2w-eval[verl]'.

    OMP_NUM_THREADS=1 python benchmarks/verl_toy.py --steps 2 --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from r2w_eval.training.checkpoints.folders import find_checkpoints
from r2w_eval.training.cluster.launch import ClusterData, launch_command, write_cluster_data
from r2w_eval.training.prompts import Prompt

from r2w_eval.store import write_json

ROOT = Path(__file__).resolve().parents[1]
HELPERS = (ROOT / "benchmarks", ROOT / "tests" / "training")
STARTS, RAY_IS_UP = 6, "Started a local Ray instance"
TEXTS = ("rain", "sun", "rain sun", "sun sun", "rain rain", "sun rain")
# variant: configuration, and what differs from it
VARIANTS = {
    "grpo": ("local", ["algorithm.adv_estimator=grpo", "algorithm.r2w.process_mapping.weight=0"]),
    "local_0": ("local", ["algorithm.r2w.process_mapping.weight=0"]),
    "local_0.5": ("local", ["algorithm.r2w.process_mapping.weight=0.5"]),
    "gae_0": ("gae", ["algorithm.r2w.process_mapping.weight=0"]),
    "gae_0.5": ("gae", ["algorithm.r2w.process_mapping.weight=0.5"]),
}
# which variant's final weights are compared with which
COMPARED = (("local_0", "grpo"), ("local_0.5", "grpo"), ("gae_0", "grpo"), ("gae_0.5", "gae_0"))
CRITIC = (
    "critic.strategy=fsdp2",
    "critic.model.use_remove_padding=false",
    "critic.model.enable_gradient_checkpointing=false",
    "critic.ppo_micro_batch_size_per_gpu=16",
    "critic.optim.lr=0.01",
)
SHOWN = {
    "score": "critic/score/mean",
    "advantage_max": "critic/advantages/max",
    "loss": "actor/pg_loss",
    "grad_norm": "actor/grad_norm",
    "value_loss": "critic/vf_loss",
    "value_explained": "critic/vf_explained_var",
}


def overrides(steps: int, out: Path) -> list[str]:
    """Sizes of the toy, and the CPU in place of GPUs."""
    engine = ["strategy=fsdp2", "use_torch_compile=false", "model_dtype=fp32"]
    precision = "{param_dtype: fp32, reduce_dtype: fp32, buffer_dtype: fp32}"
    return [
        "actor_rollout_ref.model.external_lib=[r2w_eval.training.cluster.verl_r2w,verl_cpu_rollout]",
        "actor_rollout_ref.model.use_remove_padding=false",
        "actor_rollout_ref.model.enable_gradient_checkpointing=false",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        "actor_rollout_ref.actor.strategy=fsdp2",
        *(f"actor_rollout_ref.actor.fsdp_config.{one}" for one in engine),
        f"+actor_rollout_ref.actor.fsdp_config.mixed_precision={precision}",
        *CRITIC,
        *(f"critic.fsdp.{one}" for one in engine),
        f"+critic.fsdp.mixed_precision={precision}",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16",
        "actor_rollout_ref.actor.optim.lr=0.01",
        "actor_rollout_ref.rollout.name=hf_cpu",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.free_cache_engine=false",
        "actor_rollout_ref.rollout.calculate_log_probs=false",
        "actor_rollout_ref.rollout.agent.num_workers=1",
        "algorithm.r2w.outcome=toy_scorer:Rain",
        "algorithm.r2w.process=toy_scorer:Rain",
        "algorithm.r2w.validity=waived",
        "+algorithm.r2w.process_mapping.warmup_share=0",
        "data.train_batch_size=4",
        "data.max_prompt_length=8",
        "data.max_response_length=16",
        "data.shuffle=false",
        "data.dataloader_num_workers=0",
        "reward.num_workers=1",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        "trainer.device=cpu",
        "trainer.n_gpus_per_node=1",
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={steps}",
        "trainer.test_freq=-1",
        "trainer.logger=[console,file]",
        f"trainer.default_local_dir={out}",
        f"hydra.run.dir={out / 'hydra'}",
        f"trainer.rollout_data_dir={out / 'rollouts'}",
        # a Ray of its own, whatever cluster runs on the machine
        "+ray_kwargs.ray_init.address=local",
        "ray_kwargs.ray_init.num_cpus=16",
        "+ray_kwargs.ray_init.num_gpus=1",
        "+ray_kwargs.ray_init.include_dashboard=false",
    ]


def run(name: str, data: ClusterData, model: Path, steps: int, out: Path) -> dict[str, Any]:
    """Run one training to its end; its log is written next to its checkpoint."""
    recipe, own = VARIANTS[name]
    out.mkdir(parents=True, exist_ok=True)
    argv = [*launch_command(recipe, str(model), data), *overrides(steps, out), *own]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, HELPERS)),
        "VERL_PLATFORM": "cpu",
        # the FSDP engine, which verl lists under cuda and npu
        "VERL_ENGINE_DEVICE": "cuda",
        "VERL_USE_EXTERNAL_MODULES": "verl_cpu",
        "VERL_FILE_LOGGER_PATH": str(out / "metrics.jsonl"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_agent_register_timeout_ms": "300000",
        "RAY_worker_niceness": "0",
    }
    for _ in range(STARTS):
        started = time.monotonic()
        with (out / "log.txt").open("wb") as log:
            done = subprocess.run([sys.executable, *argv[1:]], env=env, stdout=log, stderr=log)
        text = (out / "log.txt").read_text("utf-8", "replace")
        # a busy machine is too slow for Ray's agents: see ray_scoring.py
        if not done.returncode or RAY_IS_UP in text:
            break
    if done.returncode:
        raise SystemExit(f"{name}: verl ended with {done.returncode}\n{text[-3000:]}")
    lines = (out / "metrics.jsonl").read_text("utf-8").splitlines()
    logged = [record["data"] for record in map(json.loads, lines)]
    shown = [{short: step.get(key) for short, key in SHOWN.items()} for step in logged]
    return {"seconds": round(time.monotonic() - started, 1), "steps": shown}


def weights(folder: Path) -> Any:
    """All weights of a model as one vector."""
    import torch
    from safetensors.torch import load_file

    saved = load_file(folder / "model.safetensors")
    return torch.cat([saved[name].flatten().double() for name in sorted(saved)])


def largest(difference: Any) -> float:
    return float(difference.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", choices=VARIANTS, help="one variant; no comparison")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    sys.path[:0] = map(str, HELPERS)
    from toy_policy import save_policy

    model = save_policy(args.out / "model")
    prompts = [Prompt(str(n), "en", "toy", text) for n, text in enumerate(TEXTS * 4)]
    data = write_cluster_data(prompts, 4, args.out / "data")
    names = [args.only] if args.only else list(VARIANTS)
    result: dict[str, Any] = {
        name: run(name, data, model, args.steps, args.out / name) for name in names
    }
    start = weights(model)
    final = {name: weights(find_checkpoints(args.out / name)[-1].path) for name in names}
    result["largest_movement_of_a_weight"] = {n: largest(own - start) for n, own in final.items()}
    if not args.only:
        result["largest_difference_of_a_weight"] = {
            f"{one} from {other}": largest(final[one] - final[other]) for one, other in COMPARED
        }
    print(json.dumps(result, indent=1))
    write_json(args.out / "verl_toy.json", result)


if __name__ == "__main__":
    main()
