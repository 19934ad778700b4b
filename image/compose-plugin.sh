#!/usr/bin/env bash
# Compose v2 on Debian 12, which has only version 1: from Debian 13, pinned so low that nothing else comes from there.
set -euo pipefail
if docker compose version >/dev/null 2>&1; then docker compose version; exit; fi
. /etc/os-release
[ "${VERSION_CODENAME:-}" = bookworm ] || { echo "install docker compose v2 as your system has it" >&2; exit 69; }
mirror=$(sed -n 's/^URIs: *\(.*\/debian\)$/\1/p' /etc/apt/sources.list.d/debian.sources | head -n 1)
printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$mirror" > /etc/apt/sources.list.d/sandreel-trixie.sources
printf 'Package: *\nPin: release n=trixie\nPin-Priority: 100\n' > /etc/apt/preferences.d/sandreel-trixie
apt-get update -qq
apt-get install -y -qq --no-install-recommends docker-compose/trixie docker-buildx/trixie >/dev/null
docker compose version
