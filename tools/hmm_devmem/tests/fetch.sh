# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What 'tools' tests about fetching a kernel: on packages of kernels with little in them, which
# stand-ins for apt-get and apt-cache serve. tests/tools sources it.
# shellcheck disable=SC2154 # it has the numbers

FAKE=
# Where the packages go, for all of these tests but those of full disks
FETCH_CACHE=

# mini VERSION [COMMAND]: a kernel of that version in $FAKE/tree, which compiles our code by
# that command, or without a word
mini() {
	local version=$1 name=linux-source-${1%.*} tree
	tree=$FAKE/tree/$name
	mkdir -p "$FAKE/tree"
	skeleton mini
	rm -rf "$tree"
	mv "$WORK/mini" "$tree"
	mkdir -p "$tree"/{scripts/kconfig,mm,include/linux}
	printf '%s\n' 'static int (*folio_split)(struct folio *);' >"$tree/include/linux/memremap.h"
	touch "$tree/Kconfig" "$tree/mm/migrate_device.c"
	cat >"$tree/scripts/kconfig/merge_config.sh" <<-'EOF'
		#!/bin/sh
		out=$3/$4
		shift 4
		cat "$@" >"$out"
	EOF
	chmod +x "$tree/scripts/kconfig/merge_config.sh"
	printf '%s\n' "VERSION = ${version%%.*}" "PATCHLEVEL = $(cut -d . -f 2 <<<"$version")" \
		"SUBLEVEL = ${version##*.}" 'EXTRAVERSION =' 'NAME = Mini' \
		'.PHONY: allnoconfig olddefconfig mm/hmm_devmem/' \
		$'allnoconfig:\n\t@touch $(O)/.config' $'olddefconfig:\n\t@:' $'%.o:\n\t@:' \
		"mm/hmm_devmem/:"$'\n\t@'"${2:-:}" >"$tree/Makefile"
}

# pack VERSION: what is in its tree, as a package of $FAKE/debs
pack() {
	local name=linux-source-${1%.*} root=$FAKE/root
	rm -rf "$root"
	mkdir -p "$root/DEBIAN" "$root/usr/src" "$FAKE/debs"
	tar -c -C "$FAKE/tree" "$name" | xz -0 >"$root/usr/src/$name.tar.xz"
	printf '%s\n' "Package: $name" "Version: $1-1" 'Architecture: all' \
		'Maintainer: nobody <nobody@example.org>' 'Description: a kernel' \
		>"$root/DEBIAN/control"
	dpkg-deb -Znone -b "$root" "$FAKE/debs/${name}_$1-1_all.deb" >/dev/null
}

# suite NAME VERSION...: what that suite of the archive has
suite() {
	local version
	for version in "${@:2}"; do
		printf 'linux-source-%s %s-1\n' "${version%.*}" "$version"
	done >"$FAKE/suites/$1"
}

# Stand-ins, which serve what suite() says. FAKE_NETWORK, if it is set, is what goes wrong.
fake_apt() {
	mkdir -p "$FAKE/bin" "$FAKE/suites"
	cat >"$FAKE/bin/apt-get" <<-'EOF'
		#!/bin/bash
		echo "apt-get $*" >>"$FAKE/calls"
		while [[ $1 == -o ]]; do
			[[ $2 != Dir::Etc::sourcelist=* ]] || read -r _ _ mirror suite _ <"${2#*=}"
			shift 2
		done
		case "$*" in
		'update --print-uris') cat "$FAKE/uris"; exit ;;
		update*)
			[[ $mirror == http://debian* && -f $FAKE/suites/$suite &&
				$FAKE_NETWORK != none ]]
			exit
			;;
		esac
		deb=${2/=/_}_all.deb
		case $FAKE_NETWORK in
		half)
			head -c 20000 "$FAKE/debs/$deb" >"$deb"
			echo 'E: Failed to fetch'
			exit 100
			;;
		lies) head -c 20000 "$FAKE/debs/$deb" >"$deb" ;;
		*) cp "$FAKE/debs/$deb" . ;;
		esac
	EOF
	cat >"$FAKE/bin/apt-cache" <<-'EOF'
		#!/bin/bash
		while [[ $1 == -o ]]; do
			[[ $2 != Dir::Etc::sourcelist=* ]] || read -r _ _ _ suite _ <"${2#*=}"
			shift 2
		done
		[[ $FAKE_NETWORK != list ]] || exit 1
		case $1 in
		pkgnames) cut -d ' ' -f 1 "$FAKE/suites/$suite" | sort -u ;;
		madison) sed -n "s/^$2 / $2 | /p" "$FAKE/suites/$suite" | sed 's/$/ | here/' ;;
		esac
	EOF
	# There is always room, so that a disk is full when it is
	cat >"$FAKE/bin/df" <<-'EOF'
		#!/bin/sh
		printf 'Filesystem\nfake 1 1 %s 1%% /\n' "${FAKE_FREE:-99999}"
	EOF
	chmod +x "$FAKE"/bin/*
	printf "'http://debian/dists/bookworm/%s' x 0\n" InRelease main/binary-all/Packages.xz \
		>"$FAKE/uris"
}

# fetch [ARG…]: run it on what the stand-ins serve
fetch() {
	run env -u KERNEL_SRC -u HMM_DEVMEM_SOURCE -u HMM_DEVMEM_TREE \
		PATH="$FAKE/bin:$PATH" FAKE="$FAKE" FAKE_NETWORK="${network:-}" \
		FAKE_FREE="${free:-}" HMM_DEVMEM_KNOWN="$FAKE/known" \
		XDG_CACHE_HOME="$FETCH_CACHE" "$TOOLS/build/fetch" "$@"
}

# know VERSION: that one is known to pass
know() {
	local sum
	sum=$(sha256sum "$FAKE/debs/linux-source-${1%.*}_$1-1_all.deb")
	printf '# one\nlinux-source-%s %s-1 %s\n' "${1%.*}" "$1" "${sum%% *}" >"$FAKE/known"
}

# fetched WHAT VERSION: that one was taken, and its path printed
fetched() {
	check "$1" test "$rc $(tail -n 1 "$WORK/out")" = \
		"0 $FETCH_CACHE/hmm_devmem/src/linux-source-${2%.*}_$2-1"
}

# says WHAT REGEX: a line that it has printed
says() {
	check "$1" grep -Eq -e "$2" "$WORK/err"
}

# failed_fetch WHAT REGEX: it failed with a line that matches, and named the way out; no kernel
# is there, nor a part of one
failed_fetch() {
	expect "$1" 1 "$2"
	check "$1: it names KERNEL_SRC" grep -q 'set KERNEL_SRC to a kernel tree' "$WORK/err"
	check "$1: nothing is left" test -z \
		"$(find "$FETCH_CACHE" -path '*/src/linux-source-*' -print -quit)"
}

fresh_cache() {
	rm -rf "$FETCH_CACHE"
	mkdir -p "$FETCH_CACHE"
	: >"$FAKE/calls"
}

test_fetch_order() {
	local text

	fresh_cache
	suite trixie-backports 7.3.4 7.2.1
	fetch
	fetched "of 7.3 the version that is known to pass is taken" 7.3.4
	says "it says so" '7\.3\.4: linux-source-7\.3 7\.3\.4-1, known to pass$'
	: >"$FAKE/calls"
	fetch
	fetched "the second time it is there" 7.3.4
	check "the second time apt is not asked" test ! -s "$FAKE/calls"

	suite trixie-backports 7.3.5 7.3.4 7.3.3
	fetch --update
	fetched "a newer one of the series is taken" 7.3.5
	says "with a note which one is known" \
		'7\.3\.5-1, our code compiles; 7\.3\.4-1 is known to pass$'
	suite trixie-backports 7.3.6 7.3.4
	fetch --update
	fetched "one that does not compile is not: the known one is" 7.3.4
	says "what does not compile is named" \
		'known to pass \(refused: .*7\.3\.6-1: does not compile: mirror\.c:1: planted\)$'
	check "nothing is left of it" test -z "$(find "$FETCH_CACHE" -type d -name '*7.3.6*')"
	: >"$FAKE/calls"
	fetch --update
	check "it is not fetched again" not grep -q 'download.*7\.3\.6' "$FAKE/calls"

	fresh_cache
	suite trixie-backports 7.4.1 7.2.1 7.2.0
	fetch
	fetched "without a 7.3 the newest 7.x that fits is taken" 7.2.1
	text='7\.2\.1: linux-source-7\.2 .*has no linux-source-7\.3 that fits '
	text+='\(refused: linux-source-7\.4 7\.4\.1-1: mm/Kconfig: no line .*\)$'
	says "what graft refuses is named, with the line" "$text"
	fetch --why
	check "--why says it again" \
		grep -q '^7\.2\.1: linux-source-7\.2 7\.2\.1-1, our code compiles' "$WORK/out"

	fresh_cache
	suite trixie-backports 7.4.1
	suite trixie 6.12.9
	fetch
	text='no kernel of trixie-backports or trixie fits \(refused: linux-source-7\.4 7\.4\.1-1: '
	text+='.*, linux-source-6\.12 6\.12\.9-1: kernel 6\.12\.9 .*too old'
	failed_fetch "where none fits all are named" "$text"
	suite trixie 6.12.10
	fetch
	fetched "that of the stable release is taken if it fits" 6.12.10
}

# at DAYS: the choice is so old
at() {
	touch -d "-$1 days" "$FETCH_CACHE/hmm_devmem/src/chosen"
}

test_fetch_again() {
	fresh_cache
	suite trixie-backports 7.2.1
	fetch
	suite trixie-backports 7.3.4 7.2.1
	at 6
	fetch
	fetched "a choice of 6 days ago is not looked at again" 7.2.1
	at 8
	network=none
	fetch
	fetched "without a network one of 8 days ago is kept" 7.2.1
	says "and it says so" '^going on with what there is'
	network=
	at 8
	fetch
	fetched "one of 8 days ago gives way to a better one" 7.3.4
	at 8
	fetch
	fetched "but one of the series that is known to pass stays" 7.3.4
	says "with a word of how to look for another" "8 days ago; 'fetch --update'"
}

# archives LINE...: what is found where sources.list has these lines
archives() {
	printf '%s\n' "$@" >"$FAKE/sources.list"
	printf 'Dir::Etc::sourcelist "%s";\nDir::Etc::sourceparts "/dev/null";\n' \
		"$FAKE/sources.list" >"$FAKE/apt.conf"
	# shellcheck disable=SC2016
	APT_CONFIG=$FAKE/apt.conf \
		bash -c '. "$0/lib.sh"; . "$0/build/apt.sh"; apt_archives' "$TOOLS" | xargs
}

test_fetch_archive() {
	local name codename
	# shellcheck disable=SC1091
	codename=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
	for name in oldstable stable sid "$codename"; do
		check "apt's archive is found where sources.list says '$name'" test "$(archives \
			"deb http://a.example/debian-security $name-security main" \
			"deb http://d.example/debian $name main" \
			"deb http://d.example/debian $name-updates main")" = http://d.example/debian
	done
	check "that of this release comes first" test "$(archives \
		"deb http://t.example/debian stable main" \
		"deb http://d.example/debian $codename main")" = \
		"http://d.example/debian http://t.example/debian"
	fresh_cache
	suite trixie-backports 7.3.4
	printf "'http://%s/dists/%s/main/binary-all/Packages.xz' x 0\n" \
		example.org/tools stable debian oldstable >"$FAKE/uris"
	fetch
	fetched "what is no archive of Debian is passed over" 7.3.4
	fresh_cache
	: >"$FAKE/uris"
	fetch
	failed_fetch "no archive at all" 'apt has no archive'
	fake_apt
}

test_fetch_network() {
	suite trixie-backports 7.3.4
	fresh_cache
	network=none
	fetch
	failed_fetch "without a network" 'cannot read trixie-backports'
	network=list
	fetch
	failed_fetch "a package list that cannot be read" 'cannot read the package list'
	network=half
	fetch
	failed_fetch "a download that is cut off half-way" \
		'cannot fetch linux-source-7\.3 7\.3\.4-1'
	network=lies
	fetch
	failed_fetch "half of the known package" 'is not the package known to pass'
	suite trixie-backports 7.3.5
	fetch
	failed_fetch "half of another" 'cannot unpack linux-source-7\.3'
	network=
	suite trixie-backports 7.3.4
	sed -i 's/[0-9a-f]*$/0123/' "$FAKE/known"
	fetch
	failed_fetch "another checksum than that which is known" 'is not the package known to pass'
	know 7.3.4

	# What xz has written so far is there when all of it is killed
	cat >"$FAKE/bin/xz" <<-'EOF'
		#!/bin/sh
		PATH=${PATH#*:} xz "$@" | {
			head -c 300000
			echo $$ >"$FAKE/unpacking"
			sleep 1000
		}
	EOF
	chmod +x "$FAKE/bin/xz"
	rm -f "$FAKE/unpacking"
	fetch_in_background
	until [[ -s $FAKE/unpacking &&
		$(find "$FETCH_CACHE/hmm_devmem/src/.tmp/new" -type f -print -quit) ]]; do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	check "it was unpacking" test -s "$FAKE/unpacking"
	kill -9 -- "-$pid"
	wait "$pid" 2>/dev/null || true
	rm "$FAKE/bin/xz"
	check "no kernel is there after a kill" test -z \
		"$(find "$FETCH_CACHE/hmm_devmem/src" -maxdepth 1 -name 'linux-source-*')"
	fetch
	fetched "the next run begins again" 7.3.4
	check "and leaves nothing of the first" test ! -e "$FETCH_CACHE/hmm_devmem/src/.tmp"
	check "it is all there" diff -r "$FAKE/tree/linux-source-7.3" "$(tail -n 1 "$WORK/out")"
}

# In a process group of its own, the leader of which is $pid
fetch_in_background() {
	set -m
	fetch &
	pid=$!
	set +m
}

test_fetch_disk() {
	suite trixie-backports 7.3.4
	fresh_cache
	free=50
	fetch
	failed_fetch "a disk without room for a package list" 'disk full: .* has 50 MiB free'
	free=2000
	fetch
	failed_fetch "a disk without room for a kernel" 'disk full: .* has 2000 MiB free, 3000 MiB'
	free=
	if ! mount -t tmpfs -o size=24m none "$FETCH_CACHE" 2>/dev/null; then
		skipped=$((skipped + 1))
		printf 'ok %d - disks that are full # SKIP this may not mount a tmpfs\n' \
			$((passed + failed + skipped))
		return
	fi
	# The file is 64 MiB of blanks in a kernel, a few KiB of its package
	suite trixie-backports 7.8.1
	fetch
	failed_fetch "a disk that is full before the kernel is unpacked" \
		'cannot unpack linux-source-7\.8'
	head -c 64M /dev/zero >"$FETCH_CACHE/fill" 2>/dev/null || true
	fetch
	failed_fetch "a disk that is full from the start" .
	rm "$FETCH_CACHE/fill"
	suite trixie-backports 7.3.4
	mount -o remount,size=200m "$FETCH_CACHE"
	fetch
	fetched "with room it goes on" 7.3.4
	umount "$FETCH_CACHE"
}

test_fetch() {
	local network='' free='' pid
	FAKE=$WORK/fake-archive
	FETCH_CACHE=$WORK/fetch-cache
	fake_apt
	mini 7.3.3 && pack 7.3.3
	mini 7.3.4 && pack 7.3.4
	know 7.3.4
	mini 7.3.5 && pack 7.3.5
	mini 7.3.6 'echo "mirror.c:1: error: planted" >&2; false' && pack 7.3.6
	mini 7.2.1 && pack 7.2.1
	mini 7.4.1
	sed -i '/^config DEVICE_PRIVATE/d' "$FAKE/tree/linux-source-7.4/mm/Kconfig"
	pack 7.4.1
	mini 6.12.9
	: >"$FAKE/tree/linux-source-6.12/include/linux/memremap.h"
	pack 6.12.9
	mini 6.12.10 && pack 6.12.10
	mini 7.8.1
	head -c 64M /dev/zero >"$FAKE/tree/linux-source-7.8/blanks"
	pack 7.8.1
	mini 7.3.4
	test_fetch_order
	test_fetch_again
	test_fetch_archive
	test_fetch_network
	test_fetch_disk
}
