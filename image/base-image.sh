#!/usr/bin/env bash
# A base image for machines that reach Debian's packages but no container registry. It stands in for
# python:3.12-slim-bookworm and holds what that one holds as far as the Dockerfiles here care: Debian, python3 with venv,
# certificates. `image/build.py` calls it when the ordinary base cannot be pulled; made once, then found by its tag.
#
#   image/base-image.sh [TAG [SUITE]]        default: sandreel-base:trixie trixie
#
# The certificates that this machine's administrator added (/usr/local/share/ca-certificates) go into the image: where
# HTTPS is intercepted no build could install anything otherwise. Such an image belongs to the machine that made it.
set -euo pipefail

# Called by mmdebstrap, with the root file system that it makes.
trust() {
  mkdir -p "$1/usr/local/share/ca-certificates"
  if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
    cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/"
  fi
  chroot "$1" update-ca-certificates >/dev/null
}
if [ "${1:-}" = --trust ]; then trust "$2"; exit; fi

suite=${2:-trixie}
tag=${1:-sandreel-base:$suite}

if docker image inspect "$tag" >/dev/null 2>&1; then
  echo "$tag is there"
  exit
fi
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is not installed: apt-get install mmdebstrap" >&2; exit 69; }

say_how() { echo "mmdebstrap could not make $suite; its last lines are above" >&2; exit 70; }
bundle=/etc/ssl/certs/ca-certificates.crt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "making $tag from Debian's packages (once; one to two minutes)"
# Manuals and translations are a quarter of the whole, and nobody reads them in here. Licences stay.
mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --customize-hook="$(printf '%q' "$(realpath "$0")") --trust \"\$1\"" \
  "$suite" "$work/root.tar" || say_how
docker import \
  -c "ENV SSL_CERT_FILE=$bundle PIP_CERT=$bundle REQUESTS_CA_BUNDLE=$bundle NODE_EXTRA_CA_CERTS=$bundle LANG=C.UTF-8" \
  -c 'CMD ["python3"]' "$work/root.tar" "$tag" >/dev/null
echo "$tag is made"
