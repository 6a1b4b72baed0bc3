#!/usr/bin/env bash
# Train on a Cloud TPU slice with any number of hosts. Runs the same command on each host; they find each other.
#
#   TPU_NAME=NAME ZONE=ZONE scripts/train_tpu_pod.sh CONFIG RUN [options of seqlab train]
#
# Setup, once: create the slice (docs.cloud.google.com/tpu/docs/jax-pods). On every host, copy this repository to
# SEQLAB_DIR (default: seqlab, in the home directory), create .venv there, and `pip install -c constraints.txt -e
# '.[tpu]'`, with `gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command=...`. CONFIG, RUN and
# --data-dir are paths on the hosts. RUN and the data must be on a file system that all hosts share (e.g. Filestore).
#
# To stop, use the same ssh with --command="pkill -TERM -f '[s]eqlab train'". The processes save and exit with 75. Run
# the same command to resume from there, or from the last checkpoint after any failure.
set -euo pipefail

if [[ $# -lt 2 ]]; then
  echo "usage: TPU_NAME=NAME ZONE=ZONE $0 CONFIG RUN [options of seqlab train]" >&2
  exit 2
fi
: "${TPU_NAME:?the name of the slice}" "${ZONE:?the zone of the slice}"
config=$1 run=$2
shift 2

printf -v train '%q ' seqlab train "$config" --out "$run" "$@" --coordinator auto
printf -v folder '%q' "${SEQLAB_DIR:-seqlab}"

exec gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all \
  --command="cd $folder && source .venv/bin/activate && exec $train"
