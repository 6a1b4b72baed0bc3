#!/usr/bin/env bash
# Run the quickstart and the tests on Python 3.13 with the latest versions of all packages.
#
#     scripts/test_latest.sh FOLDER [SUITE]        (default: trixie)
#
# Python comes from the Debian suite SUITE, which debootstrap unpacks into FOLDER from the mirror that apt uses (500
# MB; 3 GB with the packages). The project is copied to FOLDER/SUITE/seqlab. constraints-latest.txt has the versions.
# A second call reuses the system and the virtual environment. Needs root for debootstrap (which apt installs if it is
# missing) and chroot.
# shellcheck disable=SC2016  # the single-quoted text is for apt and the inner shell
set -euo pipefail

folder=${1:?usage: scripts/test_latest.sh FOLDER [SUITE]}
suite=${2:-trixie}
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
    echo "scripts/test_latest.sh: needs root for debootstrap and chroot; run it with sudo" >&2
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

# Use this machine's DNS, pip and certificate settings.
for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    if [ -e "$file" ]; then
        cp -L "$file" "$system$file"
    fi
done
# Copy tracked and new files. Delete everything else except the virtual environment.
mkdir -p "$system/seqlab"
find "$system/seqlab" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then
        printf '%s\0' "$file"
    fi
done | tar --create --null --files-from=- | tar --extract --directory="$system/seqlab"

# The mounts are private to this command.
exec unshare --mount --propagation private bash -euo pipefail -c '
    mount -t proc proc "$0/proc"
    mount --rbind /dev "$0/dev"
    mount -t tmpfs tmpfs "$0/dev/shm"
    exec chroot "$0" /usr/bin/env HOME=/root SEQLAB_COMMIT="$1" bash -euc "
        cd /seqlab
        make CONSTRAINTS=constraints-latest.txt quickstart
        make CONSTRAINTS=constraints-latest.txt test"
' "$system" "$(git rev-parse HEAD)"
