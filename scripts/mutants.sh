#!/bin/sh
# Plants deliberate faults in a copy of the tree, one at a time, and runs the test that is to notice
# each: scripts/mutants.sh [NAME...], all of scripts/mutants by default. A mutant is a patch; its head
# says what breaks, and which test of which package notices:
#
#	Noticed-by: PACKAGE TEST
#
# Fails where a mutant survives, or cannot be planted or compiled, and where a test fails without any.
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}
unset PARTNERSYNC_LAWS # the short forms notice
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
trap 'exit 130' INT TERM
tree=$copy/tree
mkdir "$tree"
tar -cf - --exclude=./.git --exclude=./bin --exclude=./.partnersync . | tar -xf - -C "$tree"
# The copy is no repository, and none around it is to be patched.
GIT_CEILING_DIRECTORIES=$copy
export GIT_CEILING_DIRECTORIES

if [ $# = 0 ]; then
	set -- $(cd scripts/mutants && ls -- *.patch)
fi
for name in "$@"; do
	if [ ! -f "scripts/mutants/${name%.patch}.patch" ]; then
		echo "there is no mutant $name" >&2
		exit 2
	fi
done

# build PACKAGE compiles its tests; try PACKAGE TEST runs one of them.
build() {
	(cd "$tree" && $GO test -c -trimpath -vet=off -o "$copy/test" "./$1") >"$copy/told" 2>&1
}
try() {
	(cd "$tree/$1" && "$copy/test" -test.run "^$2\$" -test.failfast -test.timeout 3m </dev/null) >"$copy/told" 2>&1
}
noticer() { sed -n 's/^Noticed-by: //p' "$tree/scripts/mutants/$1.patch"; }

failed=''
wrong() {
	failed=1
	printf '%-9s %-24s %s\n' "$1" "$2" "$3"
	tail -n 20 "$copy/told" | sed 's/^/    /'
}

echo "without a mutant:"
for name in "$@"; do
	noticer "${name%.patch}"
done | sort -u >"$copy/tests"
built=''
while read -r package test; do
	: >"$copy/told"
	if [ "$built" != "$package" ] && ! build "$package"; then
		wrong broken "$package" "does not compile"
		continue
	fi
	built=$package
	if ! try "$package" "$test" || grep -q 'no tests to run' "$copy/told"; then
		wrong fails "$package" "$test"
	fi
done <"$copy/tests"
[ -z "$failed" ] || exit 1
echo "all $(wc -l <"$copy/tests") tests pass"

for name in "$@"; do
	name=${name%.patch}
	patch=scripts/mutants/$name.patch
	told=$(noticer "$name")
	package=${told% *} test=${told#* }
	began=$(date +%s)
	if ! (cd "$tree" && git apply "$patch") >"$copy/told" 2>&1; then
		wrong misfits "$name" "cannot be planted"
		continue
	fi
	if ! build "$package"; then
		wrong broken "$name" "does not compile"
	elif try "$package" "$test"; then
		wrong SURVIVES "$name" "$told"
	elif ! grep -qE "^--- FAIL: $test( |\$)|^panic: |^fatal error: " "$copy/told"; then
		wrong unclear "$name" "$told"
	else
		printf '%-9s %-24s %s (%d s)\n' noticed "$name" "$told" $(($(date +%s) - began))
	fi
	(cd "$tree" && git apply -R "$patch")
	rm -rf "$tree/$package/testdata/rapid"
done
if [ -n "$failed" ]; then
	exit 1
fi
echo "all $# are noticed"
