#!/bin/sh
# Take from a Debian system what only installing packages, logging in and mounting by hand need, so that the image
# keeps Python, a shell and the basic commands, and nothing that runs with more rights than its caller. The list of
# packages in /var/lib/dpkg stays true: scanners read it.
set -eu
purge() { dpkg --purge --force-bad-path --force-remove-essential --force-remove-protected "$@"; }
installed() { dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p'; }

# the scripts around a removal want Perl and update things that will not be there
rm -f /var/lib/dpkg/info/*.prerm /var/lib/dpkg/info/*.postrm /var/lib/dpkg/info/*.triggers

unwanted=
for package in $(installed); do
    case $package in
        apt | perl-base | adduser | debconf | gpgv | sqv | debian-archive-keyring | init-system-helpers | \
            bash | passwd | login | login.defs | mount | bsdutils | util-linux | util-linux-extra | sysvinit-utils | \
            e2fsprogs | logsave | diffutils | ncurses-bin | ncurses-base | \
            media-types | mailcap | readline-common | tzdata | usr-is-merged | usrmerge) unwanted="$unwanted $package" ;;
    esac
done
# shellcheck disable=SC2086 - a list of words
purge --force-depends $unwanted

# then the libraries that nothing left depends on; compiled Python packages need these two as well
removed=yes
while [ -n "$removed" ]; do
    removed=
    for package in $(installed); do
        case $package in
            libstdc++6 | libgcc-s1 | libfuse3-*) ;;
            lib*) if purge "$package" 2>/dev/null; then removed=yes; fi ;;
        esac
    done
done

rm -rf /usr/lib/*/gconv /usr/share/zoneinfo /usr/share/bash-completion /var/cache/* /var/log/* /var/lib/dpkg/*-old \
    /etc/apt /var/lib/apt /usr/lib/python3*/pydoc_data /usr/lib/python3*/lib2to3
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
