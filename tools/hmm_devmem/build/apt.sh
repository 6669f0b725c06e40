# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A private apt: reads suites the system does not have configured, from the mirror
# the system uses, with signatures checked, and leaves the system's own state as
# it is. Needs no root. Source lib.sh first.

# apt_archives: the configured archives, without those of security updates; first those
# that serve this release of Debian by its codename. Others can serve it by the name of its
# suite (stable, sid), or be no archive of Debian: only its signature tells.
apt_archives() {
	local codename
	# shellcheck disable=SC1091
	codename=$(. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_CODENAME:-}")
	apt-get update --print-uris 2>/dev/null |
		sed -n "s,^'\([^' ]*\)/dists/\([^' ]*\)/main/binary-.*,\1 \2,p" |
		awk -v codename="$codename" '
			$2 ~ /-security$|\/updates$/ { next }
			$2 == codename && !first[$1]++ { print 1, NR, $1 }
			$2 != codename && !other[$1]++ { print 2, NR, $1 }' |
		sort -n -k 1,1 -k 2,2 | awk '!seen[$3]++ { print $3 }'
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

# private_apt_init DIR SUITE [TYPE]: read SUITE's lists (TYPE: deb or deb-src) into DIR,
# from the first archive that has it, signed by Debian
private_apt_init() {
	local suite=$2 type=${3:-deb} mirrors mirror
	local keys=/usr/share/keyrings/debian-archive-keyring.gpg
	APT_STATE=$1
	[[ -r $keys ]] || die "$keys is missing: run 'make deps'"
	mapfile -t mirrors < <(apt_archives)
	((${#mirrors[@]})) || die "apt has no archive configured"
	mkdir -p "$APT_STATE/lists/partial" "$APT_STATE/cache/archives/partial"
	for mirror in "${mirrors[@]}"; do
		printf '%s [signed-by=%s] %s %s main\n' "$type" "$keys" "$mirror" "$suite" \
			>"$APT_STATE/sources.list"
		step "reading the package list of $suite" \
			private_apt apt-get update --error-on=any && return
	done
	die "cannot read $suite from ${mirrors[*]} (is there a network?)"
}
