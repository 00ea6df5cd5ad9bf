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
# a token of the job's own: others on these machines have none, and Ray 2.60 takes one that lies in
# the home folder for all its processes but `ray health-check`
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$head:6379"
srun --overlap --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --port=6379 --num-cpus="$SLURM_CPUS_PER_TASK" --block &
# the other nodes wait until the head answers; a head that does not start ends the job
srun --overlap --nodes=1 --ntasks=1 -w "$head" \
  timeout 600 bash -c "until ray health-check --address $address 2> /dev/null; do sleep 2; done"
others=$((SLURM_JOB_NUM_NODES - 1))
if (( others )); then
  srun --overlap --nodes=$others --ntasks=$others --ntasks-per-node=1 --exclude="$head" \
    ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
fi
RAY_ADDRESS=$address srun --overlap --nodes=1 --ntasks=1 -w "$head" \
  r2w-eval score --on ray --scorer "$scorer" --input "$input" --output "$output" \
  --workers $((SLURM_JOB_NUM_NODES * SLURM_CPUS_PER_TASK))
