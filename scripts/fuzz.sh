#!/bin/sh
# Fuzzes every fuzz target for a while: scripts/fuzz.sh [TIME], 1m each by default.
set -eu
cd "$(dirname "$0")/.."
time=${1:-1m}
for file in $(grep -rl '^func Fuzz' --include='*_test.go' .); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "$(dirname "$file") $target"
		go test "$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x
	done
done
