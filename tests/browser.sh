#!/usr/bin/env bash
# Chromium for the tests of the report, from Debian's packages, where there is none yet. Needs root to install it.
set -euo pipefail
for program in chromium chromium-browser google-chrome; do
  ! command -v "$program" >/dev/null || exit 0
done
[ "$(id -u)" = 0 ] || { echo "browser.sh: Chromium is missing: apt-get install chromium, as root" >&2; exit 1; }
log=$(mktemp); trap 'rm -f "$log"' EXIT
apt-cache show chromium >/dev/null 2>&1 || apt-get update -qq >/dev/null   # a new machine has no lists
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium fonts-dejavu-core >"$log" 2>&1 ||
  { tail "$log" >&2; echo "browser.sh: apt-get failed (apt-get update first?)" >&2; exit 1; }
