# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the scripts that run test suites share. Source it after lib.sh. tests/check sets
# the variables, to prove that a failure is reported as one.

# shellcheck disable=SC2034 # used by those who source this
GUEST=${HMM_DEVMEM_GUEST:-$TOOLS/guest/guest}
TESTS=${HMM_DEVMEM_TESTS:-$REPO/mm/hmm_devmem/tests}
SKIPS=${HMM_DEVMEM_SKIPS:-$TOOLS/suites/skips}
SELFTESTS=$REPO/tools/testing/selftests/hmm_devmem

# suite_name NAME KERNEL: the name of a suite run on that kernel
suite_name() {
	if [[ $2 == test ]]; then
		printf '%s\n' "$1"
	else
		printf '%s-%s\n' "$1" "$(basename "$2")"
	fi
}

# test_programs: the programs that kselftest runs
test_programs() {
	sed -n 's/^TEST_GEN_PROGS [:+]= *//p' "$SELFTESTS/Makefile"
}

# races: tests that need virtual CPUs which really run side by side, as 'program' (all of
# it) or 'program:test', one per line
races() {
	sed -n 's/^RACES [:+]= *//p' "$SELFTESTS/Makefile" | tr ' ' '\n'
}

# races_of PROGRAM: its tests that do; nothing if none does, or if all do
races_of() {
	races | sed -n "s/^$1://p"
}

# kunit_suites: the KUnit suites that there are in the sources
kunit_suites() {
	awk '/^static struct kunit_suite / { on = 1 }
		on && /^\t\.name = / { gsub(/.*= "|",.*/, ""); print; on = 0 }' "$TESTS"/*.c
}

# run_suite [--must NAMES] NAME COMMAND [ARG…]: run it, with its output kept and
# shown, and judge the TAP on its stdout, in which there must be tests of all programs
# or KUnit suites in NAMES. If HMM_DEVMEM_SUMMARY is set, the counts go there.
run_suite() {
	local name tap must='' rc=0
	if [[ $1 == --must ]]; then
		must=$2
		shift 2
	fi
	name=$1 tap=$LOGS/$1.tap
	shift
	"$@" 2> >(tee "$tap.err" >&2) | tee "$tap" || rc=${PIPESTATUS[0]}
	"$PYTHON3" "$TOOLS/suites/taparse" --kernel "$(source_dir)" --suite "$name" --status "$rc" \
		--must "$must" --skips "$SKIPS" \
		${HMM_DEVMEM_SUMMARY:+--summary "$HMM_DEVMEM_SUMMARY"} "$tap"
}

# built_kernel KERNEL: the folder of its build, which must be there. Where this clone has
# other sources than were built, they are built first; a folder is taken as it is.
built_kernel() {
	local dir=$1 hash
	[[ $dir == */* ]] || dir=$("$TOOLS/build/build" --dir "$1")
	[[ -f $dir/arch/x86/boot/bzImage ]] ||
		die "the $1 kernel is not built: run 'tools/hmm_devmem/build/build $1'"
	if [[ $1 != */* ]]; then
		hash=$("$TOOLS/build/build" --source-hash)
		[[ $(cat "$dir/.built" 2>/dev/null) == "$hash" ]] ||
			"$TOOLS/build/build" "$1" >/dev/null
	fi
	printf '%s\n' "$dir"
}

# compile_selftests BUILD: our programs, static, against that build's headers; the
# folder they are in
compile_selftests() {
	local out tree
	tree=$("$TOOLS/build/tree")
	out=$CACHE/programs/$(tree_key "$(source_dir)")
	mkdir -p "$out"
	lock "$out" "the programs"
	make -s -C "$tree/tools/testing/selftests/hmm_devmem" -j "$JOBS" \
		OUTPUT="$out" KHDR_INCLUDES="-isystem $1/usr/include" \
		USERCFLAGS=-Werror USERLDFLAGS=-static >&2
	unlock "$out"
	printf '%s\n' "$out"
}

# compile_upstream BUILD: the tree's own hmm-tests, unmodified but for the time limits, which
# a slow machine would exceed
compile_upstream() {
	local out tree mm flags source
	tree=$("$TOOLS/build/tree")
	mm=$tree/tools/testing/selftests/mm
	out=$CACHE/programs/$(tree_key "$(source_dir)")
	mkdir -p "$out"
	flags=(-O2 -D_GNU_SOURCE= -w -isystem "$1/usr/include" -I "$tree"
		-I "$tree/tools/testing/selftests" -I "$tree/tools/include" -I "$mm")
	for source in vm_util hugepage_settings; do
		"${CC:-gcc}" "${flags[@]}" -c "$mm/$source.c" -o "$out/$source.o" >&2 || return
	done
	"${CC:-gcc}" "${flags[@]}" -static -include "$SELFTESTS/harness.h" "$mm/hmm-tests.c" \
		"$out/vm_util.o" "$out/hugepage_settings.o" -lpthread -o "$out/hmm-tests" >&2
	printf '%s\n' "$out"
}
