# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A private apt: reads suites the system does not have configured, from the mirror
# the system uses, with signatures checked, and leaves the system's own state as
# it is. Needs no root. Source lib.sh first.

# apt_mirror: the configured archive that serves this release of Debian
apt_mirror() {
	local codename uri
	# shellcheck disable=SC1091
	codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
	[[ $codename ]] || die "cannot tell which Debian release this is"
	uri=$(apt-get update --print-uris 2>/dev/null |
		sed -n "s,^'\([^']*\)/dists/$codename/main/binary-.*,\1,p" | sed -n 1p)
	[[ $uri ]] || die "apt has no archive for $codename configured"
	printf '%s\n' "$uri"
}

# private_apt COMMAND [ARG…]: run apt-get or apt-cache on the private state
private_apt() {
	local command=$1 dir=$APT_STATE
	shift
	"$command" \
		-o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
		-o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" \
		-o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=2 \
		-o APT::Update::Post-Invoke= -o APT::Update::Post-Invoke-Success= "$@"
}

# private_apt_init DIR SUITE [TYPE]: read SUITE's lists (TYPE: deb or deb-src) into DIR
private_apt_init() {
	local suite=$2 type=${3:-deb} mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
	APT_STATE=$1
	[[ -r $keys ]] || die "$keys is missing: run 'make deps'"
	mirror=$(apt_mirror) || exit
	mkdir -p "$APT_STATE/lists/partial" "$APT_STATE/cache/archives/partial"
	printf '%s [signed-by=%s] %s %s main\n' "$type" "$keys" "$mirror" "$suite" \
		>"$APT_STATE/sources.list"
	step "reading the package list of $suite" private_apt apt-get update --error-on=any ||
		die "cannot read $suite from $mirror (is there a network?)"
}
