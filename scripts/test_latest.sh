#!/usr/bin/env bash
# Run the quickstart and the tests on Python 3.13 with the versions of constraints-latest.txt.
#
#     scripts/test_latest.sh FOLDER
#
# Python comes from Debian trixie, which debootstrap unpacks into FOLDER, from the mirror that apt uses (about 400 MB).
# The project is copied to FOLDER/seqlab: what git tracks, and new files. A second call reuses the system and the
# virtual environment. Needs root, for debootstrap and chroot.
set -euo pipefail

folder=${1:?usage: scripts/test_latest.sh FOLDER}
cd "$(dirname "$0")/.."
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
system=$folder/trixie
packages=python3,python3-venv,ca-certificates,make,git,apt

if [ "$(id -u)" != 0 ]; then
    echo "scripts/test_latest.sh: debootstrap and chroot need root: run it with sudo" >&2
    exit 2
fi
if ! command -v debootstrap >/dev/null; then
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends debootstrap >/dev/null
fi
if [ ! -e "$system/complete" ]; then
    rm -rf "$system"
    mirror=$(apt-get indextargets --format '$(SITE)' | grep -m 1 debian || true)
    debootstrap --variant=minbase --include="$packages" trixie "$system" ${mirror:+"$mirror"}
    touch "$system/complete"
fi
