#!/bin/sh
# Installs inboxd as a systemd service, brings an installed one up to this checkout, or removes it again.
#
#   install.sh install [--drop-in postgresql] [--drop-in page] [--drop-in notify]
#   install.sh uninstall
#
# Run it as root. PYTHON names the interpreter (default /usr/bin/python3, 3.11 or later, with venv). What is yours is
# never touched by either: /etc/inboxd, /var/lib/inboxd*, /var/log/inboxd*. A new release is complete before the running
# daemon is stopped for it, and a second run without a change does nothing.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
source=$(dirname "$here")
python=${PYTHON:-/usr/bin/python3}
root=/opt/inboxd
units=/etc/systemd/system
dropins="$units/inboxd.service.d"
share=/usr/local/share
completions="bash:$share/bash-completion/completions/inboxd zsh:$share/zsh/site-functions/_inboxd
    fish:$share/fish/vendor_completions.d/inboxd.fish"
manual=$share/man/man1/inboxd.1

say() { printf 'inboxd: %s\n' "$*"; }
die() { printf 'inboxd: %s\n' "$*" >&2; exit 1; }

systemd_runs() { [ -d /run/systemd/system ]; }

check_host() {
    [ "$(id -u)" -eq 0 ] || die 'needs root: sudo make install'
    [ ! -e /lib/systemd/system/inboxd.service ] || die 'the Debian package is installed: apt remove inboxd first'
    command -v systemctl >/dev/null || die 'needs systemd'
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "$python is not Python 3.11 or later; name one: make install PYTHON=/usr/bin/python3.11"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || die "$python has no venv: apt-get install python3-venv"
    case $("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
        /root/* | /home/* | /tmp/*) die "$python is out of the service's reach (ProtectHome=); use one under /usr" ;;
    esac
}

# The same source, locks and interpreter make the same release, which is then not built again.
release_name() {
    version=$(sed -n 's/^__version__.*"\(.*\)"$/\1/p' "$source/daemon/inboxd/__init__.py")
    digest=$({
        "$python" -VV
        cd "$source"
        find daemon/inboxd pyproject.toml locks/run.txt locks/build.txt -name __pycache__ -prune -o -type f -print |
            LC_ALL=C sort | xargs sha256sum
    } | sha256sum | cut -c 1-12)
    printf '%s-%s\n' "$version" "$digest"
}

build_release() {
    release=$1
    [ -e "$release/.complete" ] && return
    say "building $release"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    rm -rf "$release"
    "$python" -m venv "$work/build"
    "$work/build/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$source/locks/build.txt"
    "$work/build/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --no-index --no-build-isolation \
        --wheel-dir "$work" "$source"
    "$python" -m venv "$release"
    "$release/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$source/locks/run.txt"
    "$release/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-index "$work"/inboxd-*.whl
    "$release/bin/inboxd" --version >/dev/null || die 'the new release does not run; the installed one was left alone'
    touch "$release/.complete"
}

# Puts a file in place if it differs; remembers that something did.
put() {
    cmp -s "$1" "$2" && return
    install -D -m 644 "$1" "$2"
    changed=yes
}

put_files() {
    put "$here/sysusers.d/inboxd.conf" /etc/sysusers.d/inboxd.conf
    systemd-sysusers inboxd.conf
    # The folder may be seen by all: who may not read the config is told so, and not that there is none.
    install -d -m 755 /etc/inboxd
    [ -e /etc/inboxd/inboxd.toml ] ||
        install -m 640 -o root -g inboxd "$here/inboxd.toml" /etc/inboxd/inboxd.toml
    put "$here/tmpfiles.d/inboxd.conf" /etc/tmpfiles.d/inboxd.conf
    systemd-tmpfiles --create inboxd.conf
    put "$here/logrotate.d/inboxd" /etc/logrotate.d/inboxd
    put "$here/inboxd.service" "$units/inboxd.service"
    put "$here/inboxd@.service" "$units/inboxd@.service"
    for name in "$here"/inboxd.service.d/*.conf; do
        put "$name" "$root/share/$(basename "$name")"
    done
}

# What completes commands and options when you press Tab, for the shells that look there.
put_completions() {
    for shell_and_place in $completions; do
        place=${shell_and_place#*:}
        install -d "$(dirname "$place")"
        _INBOXD_COMPLETE="${shell_and_place%%:*}_source" "$root/bin/inboxd" >"$place" || rm -f "$place"
    done
}

put_manual() {
    install -d "$(dirname "$manual")"
    "$1/bin/python" -m inboxd.cli.man >"$manual" || rm -f "$manual"  # the link is no environment of its own
}

# A drop-in is a link to the shipped one, so that an upgrade reaches it.
enable_drop_in() {
    shipped="$root/share/$1.conf"
    [ -e "$shipped" ] || die "there is no drop-in $1; there are: $(cd "$root/share" && echo *.conf)"
    case $1 in  # what it loads must be there
        postgresql) secret=/etc/inboxd/database-password ;;
        notify) secret=/etc/inboxd/notify-headers ;;
        *) secret='' ;;
    esac
    [ -z "$secret" ] || [ -e "$secret" ] || install -m 600 /dev/null "$secret"
    [ -e "$dropins/$1.conf" ] && return
    install -d "$dropins"
    ln -s "$shipped" "$dropins/$1.conf"
    changed=yes
}

switch_to() {
    [ "$(readlink "$root/bin" || true)" = "$1/bin" ] && return
    ln -sfn "$1/bin" "$root/bin.new"
    mv -T "$root/bin.new" "$root/bin"
    install -d /usr/local/bin
    ln -sfn "$root/bin/inboxd" /usr/local/bin/inboxd
    put_completions
    put_manual "$1"
    changed=yes
}

# The daemon itself brings the database up to date before it says that it is ready.
start() {
    systemctl --quiet enable inboxd.service
    if ! systemd_runs; then
        say 'systemd is not running here; the service starts with the next boot'
        return
    fi
    systemctl daemon-reload
    if [ "$changed" = yes ]; then
        systemctl try-restart 'inboxd@*.service'
        systemctl restart inboxd.service || failed_start
    else
        systemctl start inboxd.service || failed_start
    fi
}

failed_start() {
    journalctl --unit inboxd.service --lines 20 --output cat --no-pager >&2 || true
    die 'the service does not start: the lines above are the last of its journal'
}

remove_old_releases() {
    for old in "$root"/releases/*; do
        [ "$old" = "$1" ] || rm -rf "$old"
    done
}

do_install() {
    check_host
    changed=no
    release="$root/releases/$(release_name)"
    build_release "$release"
    put_files
    for name in $wanted_drop_ins; do
        enable_drop_in "$name"
    done
    switch_to "$release"
    start
    remove_old_releases "$release"
    say "$("$root/bin/inboxd" --version) is installed. Drop files into /var/lib/inboxd/inbox; see systemctl status inboxd"
}

do_uninstall() {
    [ "$(id -u)" -eq 0 ] || die 'needs root: sudo make uninstall'
    if systemd_runs; then
        systemctl --quiet stop inboxd.service 'inboxd@*.service' || true
    fi
    systemctl --quiet disable inboxd.service || true
    for name in postgresql page; do
        [ -L "$dropins/$name.conf" ] && rm "$dropins/$name.conf"
    done
    rmdir "$dropins" 2>/dev/null || true
    rm -f "$units/inboxd.service" "$units/inboxd@.service" "$units"/multi-user.target.wants/inboxd@*.service \
        /etc/sysusers.d/inboxd.conf /etc/tmpfiles.d/inboxd.conf /etc/logrotate.d/inboxd /usr/local/bin/inboxd
    for shell_and_place in $completions; do
        rm -f "${shell_and_place#*:}"
    done
    rm -f "$manual"
    rm -rf "$root"
    if systemd_runs; then
        systemctl daemon-reload
    fi
    say 'removed. Kept, because they are yours: /etc/inboxd, /var/lib/inboxd*, /var/log/inboxd*, the user and its groups'
}

wanted_drop_ins=
action=${1:-}
[ $# -eq 0 ] || shift
while [ $# -gt 0 ]; do
    case $1 in
        --drop-in) [ $# -ge 2 ] || die '--drop-in needs a name'; wanted_drop_ins="$wanted_drop_ins $2"; shift 2 ;;
        *) die "unknown argument $1" ;;
    esac
done
case $action in
    install) do_install ;;
    uninstall) do_uninstall ;;
    *) die 'usage: install.sh install [--drop-in NAME]… | uninstall' ;;
esac
