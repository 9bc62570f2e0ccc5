#!/bin/sh
# Installs Postgres for the private server of `make demo` and `make test`, where that takes no
# questions: on Debian or Ubuntu, as root or with a sudo that asks for no password.
# It does nothing when Postgres is there. No cluster is made and no server started.
set -eu

# The places where internal/localpg looks, too.
found() {
	if command -v initdb >/dev/null 2>&1 && command -v postgres >/dev/null 2>&1; then
		return 0
	fi
	for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* \
		/opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
		/Applications/Postgres.app/Contents/Versions/*/bin /usr/local/pgsql/bin; do
		if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
			return 0
		fi
	done
	return 1
}

give_up() {
	cat >&2 <<'TEXT'
Postgres is not installed, and installing it here takes your hand:
  Debian, Ubuntu   sudo apt-get install postgresql
  Fedora, RHEL     sudo dnf install postgresql-server
  Alpine           sudo apk add postgresql
  macOS            brew install postgresql@17
Or use a server that runs already: DATABASE_URL for partnersync itself,
PARTNERSYNC_TEST_DATABASE_URL for the tests (its role must be allowed to create databases).
TEXT
	exit 1
}

if found; then
	exit 0
fi
command -v apt-get >/dev/null 2>&1 || give_up
if [ "$(id -u)" -eq 0 ]; then
	as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
	as_root=sudo
else
	give_up
fi

echo "installing Postgres with apt-get ..." >&2
# The package makes a cluster and starts it, which nobody asked for. This file says no
# for the time of the installation.
conf=/etc/postgresql-common/createcluster.d/partnersync.conf
$as_root mkdir -p "${conf%/*}"
echo 'create_main_cluster = false' | $as_root tee "$conf" >/dev/null
trap '$as_root rm -f "$conf"' EXIT
trap 'exit 1' INT TERM HUP
$as_root apt-get update -q >&2 || echo "apt-get update failed: trying with the lists that are there" >&2
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql >&2 || give_up
found || give_up
