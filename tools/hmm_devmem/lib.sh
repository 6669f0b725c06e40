# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the scripts of these folders share. Source it first:
#
#	. "$(dirname "$(readlink -f "$0")")/../lib.sh"
#
# It sets REPO (the clone), TOOLS (this folder), CACHE and LOGS, and defines the
# functions below. Messages go to stderr: stdout is for results.

set -euo pipefail
# What fails inside of $( ) ends that, too
shopt -s inherit_errexit

TOOLS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck disable=SC2034 # for those who source this
REPO=$(readlink -f "$TOOLS/../..")
PROG=$(basename "$0")
CACHE=${XDG_CACHE_HOME:-${HOME:?}/.cache}/hmm_devmem
LOGS=$CACHE/log
JOBS=${JOBS:-$(nproc)}
# The kernel's scripts want the distribution's interpreter, not the first in PATH
PYTHON3=/usr/bin/python3
[[ -x $PYTHON3 ]] || PYTHON3=python3

# With what a script sets WAY_OUT to at the end of the line
DIED=
die() {
	# shellcheck disable=SC2034 # for those who source this
	DIED=1
	printf '%s: error: %s%s\n' "$PROG" "$*" "${WAY_OUT:+; $WAY_OUT}" >&2
	exit 1
}

# Wrong use of a script: exit 2
die_usage() {
	printf '%s: %s (see %s --help)\n' "$PROG" "$*" "$PROG" >&2
	exit 2
}

info() {
	printf '%s\n' "$*" >&2
}

[[ $JOBS =~ ^[1-9][0-9]*$ ]] || die "JOBS is not a number above 0: '$JOBS'"

# kbuild cannot live with blanks or colons in a path
case $CACHE in
*[[:space:]:]*) die "the cache folder's path holds a blank or a colon: '$CACHE'" ;;
/*) ;;
*) die "the cache folder's path is not absolute: '$CACHE'" ;;
esac
mkdir -p "$LOGS" || die "cannot make the cache folder $CACHE"

# need_space DIR MIB: fail unless DIR's filesystem has that much room
need_space() {
	local free
	mkdir -p "$1"
	free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
	((free >= $2)) ||
		die "disk full: $1 has $free MiB free, $2 MiB are needed"
}

# lock PATH [what]: hold an exclusive lock on PATH.lock until unlock, or the end
declare -A LOCKS=()
lock() {
	local fd
	mkdir -p "$(dirname "$1")"
	exec {fd}>"$1.lock"
	LOCKS[$1]=$fd
	flock -n "$fd" && return
	info "$PROG: waiting for another run to finish with ${2:-$1}"
	flock "$fd"
}

unlock() {
	local fd=${LOCKS[$1]}
	exec {fd}>&-
}

fmt_seconds() {
	if (($1 < 60)); then
		printf '%d s' "$1"
	else
		printf '%d min %02d s' $(($1 / 60)) $(($1 % 60))
	fi
}

# The live line of a step: time so far and what the command said last. It is written
# over with blanks: a log of the terminal holds nothing but text.
step_live() {
	local what=$1 log=$2 start=$3 width=$4 last
	while sleep 0.5; do
		last=$(tail -n 1 "$log" 2>/dev/null | tr -cd '[:print:]')
		last="$what: $(fmt_seconds $((SECONDS - start)))  ${last## }"
		printf '\r%-*s' "$width" "${last:0:width}" >&2
	done
}

# step WHAT COMMAND [ARG…]: run COMMAND, its output to a log, and say how long it
# took. On failure the end of the log is shown (STEP_TAIL lines) and the status
# returned.
STEP_TAIL=${STEP_TAIL:-25}
step() {
	local what=$1 log rc=0 live="" start=$SECONDS width
	shift
	log=$LOGS/$(tr -cs 'A-Za-z0-9_.\n-' '-' <<<"$PROG-$what").log
	: >"$log"
	if [[ -t 2 ]]; then
		width=$(($(tput cols 2>/dev/null || echo 80) - 1))
		step_live "$what" "$log" "$start" "$width" &
		live=$!
	else
		info "$what ..."
	fi
	"$@" >"$log" 2>&1 </dev/null || rc=$?
	if [[ $live ]]; then
		kill "$live" 2>/dev/null || true
		wait "$live" 2>/dev/null || true
		printf '\r%*s\r' "$width" "" >&2
	fi
	if ((rc)); then
		tail -n "$STEP_TAIL" "$log" >&2
		info "$what: FAILED after $(fmt_seconds $((SECONDS - start))), whole log: $log"
		return "$rc"
	fi
	info "$what: done ($(fmt_seconds $((SECONDS - start))))"
}

# check_kernel_tree DIR: fail with one line unless DIR can take hmm_devmem; what it
# must have is tested by feature, not by version
check_kernel_tree() {
	local dir=$1 f
	for f in Kconfig Makefile mm/migrate_device.c include/linux/memremap.h; do
		[[ -f $dir/$f ]] || die "not a kernel source tree: $dir has no $f"
	done
	[[ $(kernel_version "$dir") == *.* ]] ||
		die "not a kernel source tree: $dir/Makefile has no VERSION"
	grep -q '(\*folio_split)(struct folio' "$dir/include/linux/memremap.h" ||
		die "kernel $(kernel_version "$dir") in $dir is too old:" \
			"its dev_pagemap_ops have no folio_split"
}

# our_paths: what of ours goes into a kernel, as its entry in MAINTAINERS has it: files,
# and folders with a slash at the end
our_paths() {
	sed -n 's/^F:\t//p' "$REPO/MAINTAINERS.hmm_devmem"
}

# our_code [TREE]: those of them that are compiled; of folders, those that TREE has
our_code() {
	local path
	our_paths | grep -Ev '^(tools|Documentation)/' | while read -r path; do
		[[ ${1:-} && (! -d $1/$path || $path != */) ]] || printf '%s\n' "$path"
	done
}

# our_sources TREE: the C files of those that TREE has
our_sources() {
	(cd "$1" && our_paths | grep -Ev '^(tools|Documentation)/' |
		xargs -I@ find @ -name '*.c' 2>/dev/null)
}

kernel_version() {
	awk -F ' *= *' '
		/^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *=/ { v[$1] = $2 }
		/^NAME/ { exit }
		END { print v["VERSION"] "." v["PATCHLEVEL"] "." v["SUBLEVEL"] v["EXTRAVERSION"] }
	' "$1/Makefile"
}

# The package that is known to pass
# shellcheck disable=SC2034 # the sum is for fetch
read -r KNOWN_NAME KNOWN_VERSION KNOWN_SUM \
	< <(grep -v '^#' "${HMM_DEVMEM_KNOWN:-$TOOLS/build/known}")

# source_entry NAME VERSION: where that package is, below $CACHE/src
source_entry() {
	printf '%s_%s\n' "$1" "$(printf '%s' "$2" | tr -c 'A-Za-z0-9.-' _)"
}

# cached_source: the pristine tree in the cache that `fetch` has chosen, else that which is
# known to pass. HMM_DEVMEM_SOURCE is for `fetch`, which tries one before it chooses.
cached_source() {
	local entry=${HMM_DEVMEM_SOURCE:-}
	[[ $entry || ! -f $CACHE/src/chosen ]] || read -r entry <"$CACHE/src/chosen" || true
	[[ $entry && -d $CACHE/src/$entry ]] || entry=$(source_entry "$KNOWN_NAME" "$KNOWN_VERSION")
	[[ -d $CACHE/src/$entry ]] || return 1
	printf '%s\n' "$CACHE/src/$entry"
}

# source_dir: the pristine tree to use; KERNEL_SRC comes first
source_dir() {
	if [[ ${KERNEL_SRC:-} ]]; then
		[[ -d $KERNEL_SRC ]] || die "KERNEL_SRC is not a folder: $KERNEL_SRC"
		readlink -f "$KERNEL_SRC"
	else
		cached_source || die "no kernel source in the cache: run 'make kernel' first"
	fi
}

# why_source: in one line which kernel that is, and why
why_source() {
	local dir why
	dir=$(source_dir)
	if [[ ${KERNEL_SRC:-} ]]; then
		why="$dir, which KERNEL_SRC names"
	elif [[ $(sed -n 1p "$CACHE/src/chosen" 2>/dev/null) == "$(basename "$dir")" ]]; then
		why=$(sed -n 2p "$CACHE/src/chosen")
	else
		why="$KNOWN_NAME $KNOWN_VERSION, known to pass"
	fi
	printf '%s: %s\n' "$(kernel_version "$dir")" "$why"
}

# tree_key SOURCE: name of the grafted copy of SOURCE below $CACHE/tree
tree_key() {
	local key
	case $1 in
	"$CACHE"/src/*) key=$(basename "$1") ;;
	*) key=ext-$(printf '%s' "$1" | sha256sum | cut -c 1-12) ;;
	esac
	# A second clone with other contents can keep out of the first one's way
	printf '%s%s\n' "$key" "${HMM_DEVMEM_TREE:+-$HMM_DEVMEM_TREE}"
}

# llvm_tool NAME: that program of the LLVM that is asked for
llvm_tool() {
	case $LLVM in
	*/) printf '%s%s\n' "$LLVM" "$1" ;;
	-*) printf '%s%s\n' "$1" "$LLVM" ;;
	*) printf '%s\n' "$1" ;;
	esac
}

# check_compiler: fail with one line unless the programs that build a kernel are there
check_compiler() {
	local tool programs=("${CC:-gcc}")
	if [[ ${LLVM:-} ]]; then
		programs=()
		for tool in clang ld.lld llvm-ar llvm-nm llvm-objcopy; do
			programs+=("$(llvm_tool "$tool")")
		done
	fi
	for tool in "${programs[@]}"; do
		command -v "$tool" >/dev/null || die "there is no ${LLVM:+LLVM=$LLVM, no }$tool"
	done
}

# cc_id: the compiler, as a word for a folder's name
cc_id() {
	if [[ ${LLVM:-} ]]; then
		printf 'clang%s\n' "$("$(llvm_tool clang)" -dumpversion)"
	else
		printf 'gcc%s\n' "$("${CC:-gcc}" -dumpfullversion)"
	fi
}

# build_dir NAME: where the build of that name is, or is to be
build_dir() {
	check_compiler
	printf '%s/build/%s/%s-%s\n' "$CACHE" "$(tree_key "$(source_dir)")" "$1" "$(cc_id)"
}
