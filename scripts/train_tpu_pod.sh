#!/usr/bin/env bash
# Trains on a Cloud TPU slice of any number of hosts: the same command on each; they find one another.
#
#   TPU_NAME=NAME ZONE=ZONE scripts/train_tpu_pod.sh CONFIG RUN [options of seqlab train]
#
# Before, once: make the slice (docs.cloud.google.com/tpu/docs/jax-pods), put this repository into SEQLAB_DIR on every
# host (default: seqlab, in the home directory), make .venv there and `pip install -c constraints.txt -e '.[tpu]'`; by
# `gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command=...`. CONFIG, RUN, --data-dir are paths on
# the hosts; RUN and the data are on a file system that all hosts share (Filestore, say).
#
# To stop: the same ssh with --command="pkill -TERM -f '[s]eqlab train'". The processes save and end with 75; the same
# command again goes on from there, as it does from the last checkpoint after anything else.
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
