#!/usr/bin/env bash
# Trains on one machine with any number of NVIDIA GPUs: one process sees them all.
#
#   scripts/train_gpu.sh CONFIG RUN [options of seqlab train]
#
# The same command again goes on from the last checkpoint. CUDA_VISIBLE_DEVICES=0,1 takes some of the GPUs.
# Edit: where the virtual environment is; it is made with `pip install -c constraints.txt -e '.[cuda]'`.
set -euo pipefail

if [[ $# -lt 2 ]]; then
  echo "usage: $0 CONFIG RUN [options of seqlab train]" >&2
  exit 2
fi
config=$1 run=$2
shift 2

# shellcheck disable=SC1091
source .venv/bin/activate

# Collectives overlap with what does not need them (docs.nvidia.com/jax-toolbox/environment-variables). Slower, runs
# repeated to the bit: XLA_FLAGS='--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0'.
export XLA_FLAGS="${XLA_FLAGS:---xla_gpu_enable_latency_hiding_scheduler=true}"

exec seqlab train "$config" --out "$run" "$@"
