#!/bin/sh
# Fuzzes every fuzz target for a while: scripts/fuzz.sh [TIME], 1m each by default.
# All have their turn; what failed is told at the end.
set -eu
cd "$(dirname "$0")/.."
time=${1:-1m}
told=$(mktemp)
trap 'rm -f "$told"' EXIT
failed='' late=''
for file in $(grep -rl '^func Fuzz' --include='*_test.go' .); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		name="$(dirname "$file") $target"
		echo "$name"
		status=0
		go test "$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x >"$told" 2>&1 || status=$?
		cat "$told"
		if [ "$status" = 0 ]; then
			continue
		fi
		# On a busy machine Go may end a target that found nothing with this error.
		if grep -q 'context deadline exceeded' "$told" && ! grep -q 'Failing input written' "$told"; then
			late="$late
  $name"
		else
			failed="$failed
  $name"
		fi
	done
done
if [ -n "$late" ]; then
	echo "ran out of time and found nothing:$late"
fi
if [ -n "$failed" ]; then
	echo "failed:$failed"
	exit 1
fi
