#!/usr/bin/env bash
# Train on one machine with any number of NVIDIA GPUs, in one process that uses all of them.
#
#   scripts/train_gpu.sh CONFIG RUN [options of seqlab train]
#
# Run the same command again to resume from the last checkpoint. CUDA_VISIBLE_DEVICES=0,1 selects some of the GPUs.
# Edit the path of the virtual environment. Install seqlab in it with `pip install -c constraints.txt -e '.[cuda]'`.
set -euo pipefail

if [[ $# -lt 2 ]]; then
  echo "usage: $0 CONFIG RUN [options of seqlab train]" >&2
  exit 2
fi
config=$1 run=$2
shift 2

# shellcheck disable=SC1091
source .venv/bin/activate

# Overlap collectives with independent computation (docs.nvidia.com/jax-toolbox/environment-variables). For slower but
# bit-identical runs use XLA_FLAGS='--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0'.
export XLA_FLAGS="${XLA_FLAGS:---xla_gpu_enable_latency_hiding_scheduler=true}"

export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda}" # fail if there is no GPU, instead of using the CPU
exec seqlab train "$config" --out "$run" "$@"
