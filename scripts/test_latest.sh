#!/usr/bin/env bash
# Run the quickstart and the tests on Python 3.13 with the newest versions of all packages.
#
#     scripts/test_latest.sh FOLDER [SUITE]        (default: trixie)
#
# Python comes from the Debian suite SUITE, which debootstrap unpacks into FOLDER from the mirror that apt uses (500 MB;
# with the packages 3 GB). The project is copied to FOLDER/SUITE/seqlab. Versions are those of constraints-latest.txt.
# A second call reuses the system and the virtual environment. Needs root, for debootstrap and chroot.
# shellcheck disable=SC2016  # apt and the inner shell expand what stands in single quotes
set -euo pipefail

folder=${1:?usage: scripts/test_latest.sh FOLDER [SUITE]}
suite=${2:-trixie}
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
    echo "scripts/test_latest.sh: debootstrap and chroot need root: run it by sudo" >&2
    exit 2
fi
mkdir -p "$folder"
system=$(cd "$folder" && pwd)/$suite

if [ ! -e "$system/complete" ]; then
    if ! command -v debootstrap >/dev/null; then
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends debootstrap >/dev/null
    fi
    rm -rf "$system"
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
    packages=python3,python3-venv,ca-certificates,chromium,git,make
    debootstrap --variant=minbase --include="$packages" "$suite" "$system" ${mirror:+"$mirror"}
    touch "$system/complete"
fi

# The network and the package index are reached as on this machine.
for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    if [ -e "$file" ]; then
        cp -L "$file" "$system$file"
    fi
done
# What git tracks, and new files; files that are gone are gone there too, and the virtual environment stays.
mkdir -p "$system/seqlab"
find "$system/seqlab" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then
        printf '%s\0' "$file"
    fi
done | tar --create --null --files-from=- | tar --extract --directory="$system/seqlab"

# The mounts are seen by this command alone, and end with it.
exec unshare --mount --propagation private bash -euo pipefail -c '
    mount -t proc proc "$0/proc"
    mount --rbind /dev "$0/dev"
    mount -t tmpfs tmpfs "$0/dev/shm"
    exec chroot "$0" /usr/bin/env HOME=/root bash -euc "
        cd /seqlab
        git init -q . 2>/dev/null
        make CONSTRAINTS=constraints-latest.txt quickstart
        make CONSTRAINTS=constraints-latest.txt test"
' "$system"
