#!/bin/bash
# sbatch docs/ray/slurm.sh SCORER INPUT OUTPUT: one Ray node a Slurm node, then one scoring job.
# Sent again after a time limit, the job goes on with the splits that have no part yet.
#SBATCH --job-name=r2w-score
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=0
#SBATCH --time=04:00:00
set -euo pipefail
scorer=$1 input=$2 output=$3
source "${R2W_VENV:-$HOME/r2w}/bin/activate"
export RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$head:6379"
srun --overlap --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --port=6379 --num-cpus="$SLURM_CPUS_PER_TASK" --block &
# the other nodes wait until the head answers
srun --overlap --nodes=1 --ntasks=1 -w "$head" \
  bash -c "until ray health-check --address $address; do sleep 2; done"
if (( SLURM_JOB_NUM_NODES > 1 )); then
  srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 --exclude="$head" \
    ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
fi
RAY_ADDRESS=$address srun --overlap --nodes=1 --ntasks=1 -w "$head" \
  r2w-eval score --on ray --scorer "$scorer" --input "$input" --output "$output" \
  --workers $((SLURM_JOB_NUM_NODES * SLURM_CPUS_PER_TASK))
