#!/bin/sh
# Puts prometheus and promtool into bin/ for the tests of the dashboards and alert rules, where that takes no
# questions: on Debian or Ubuntu, out of their package "prometheus". The package is unpacked, not installed: no
# service is set up or started, and nobody has to be root. It does nothing when both are there.
#
# Without them those tests are skipped, and say so. PARTNERSYNC_REQUIRE_PROMETHEUS=1 makes that a failure.
set -eu
cd "$(dirname "$0")/.."

found() {
	for name in prometheus promtool; do
		command -v "$name" >/dev/null 2>&1 || [ -x "bin/$name" ] || return 1
	done
}

give_up() {
	cat >&2 <<'TEXT'
Prometheus is not installed, and installing it here takes your hand:
  Debian, Ubuntu   sudo apt-get install prometheus
  macOS            brew install prometheus
  elsewhere        put prometheus and promtool of a release into bin/
Until then the tests of alert rules and dashboards that need it are skipped.
TEXT
	[ "${PARTNERSYNC_REQUIRE_PROMETHEUS:-}" = "" ] || exit 1
	exit 0
}

if found; then
	exit 0
fi
if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
	give_up
fi

echo "fetching Prometheus with apt-get ..." >&2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP
fetch() { (cd "$tmp" && apt-get download -q prometheus) >"$tmp/log" 2>&1; }
if ! fetch; then
	# The lists of packages may be missing or old; only root may fetch them.
	if [ "$(id -u)" -eq 0 ]; then
		apt-get update -q >>"$tmp/log" 2>&1 || true
	elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
		sudo apt-get update -q >>"$tmp/log" 2>&1 || true
	fi
	fetch || { cat "$tmp/log" >&2; give_up; }
fi
dpkg-deb -x "$tmp"/prometheus_*.deb "$tmp/root" || give_up
mkdir -p bin || give_up
for name in prometheus promtool; do
	# A move within bin/, so that two of these at a time do no harm.
	{ cp "$tmp/root/usr/bin/$name" "bin/.$name.$$" && mv "bin/.$name.$$" "bin/$name"; } || give_up
done
bin/promtool --version >/dev/null 2>&1 || { rm -f bin/prometheus bin/promtool; give_up; }
