#!/usr/bin/env bash
# The outcome reward of r2w-reward in verl 0.9, which needs an environment of its own:
#   pip install 'verl[vllm]==0.9.1' r2w-eval
# r2w-reward itself needs no torch and runs on the CPU beside the trainer. A text that cannot be scored
# raises Unscorable, which verl counts as a failed sample; it is never paid 0.
# With rewards on each reflection: r2w-eval train cluster. Not run here: no machine with verl's GPU build
# was at hand. tests/training/cluster/test_verl.py calls the function through verl's own reward loop.
set -euo pipefail
reward=$(python -c "import r2w_eval.reward_models.adapters as adapters; print(adapters.__file__)")
python -m verl.trainer.main_ppo \
  algorithm.adv_estimator=grpo \
  data.train_files="${TRAIN_FILE:?a parquet file with verl\'s columns}" \
  data.val_files="${VAL_FILE:?a parquet file}" \
  actor_rollout_ref.model.path="${MODEL:?a checkpoint or hub id}" \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  reward.custom_reward_function.path="$reward" \
  reward.custom_reward_function.name=compute_score \
  trainer.n_gpus_per_node="${GPUS:-1}"
