#!/bin/sh
# Builds the Debian package: the program with an environment of its own under /opt/inboxd, the service and its user.
#
#   build.sh ENVIRONMENT FOLDER
#
# ENVIRONMENT is a virtual environment with the wheel and the locked dependencies in it (`make deb` makes it); the
# package goes into FOLDER. PYTHON names the interpreter that the service is to run on (default /usr/bin/python3), which
# is Debian's own: it must be of the environment's version, as some dependencies are compiled for that one.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
source=$(dirname "$here")
environment=${1:?usage: build.sh ENVIRONMENT FOLDER}
folder=${2:?usage: build.sh ENVIRONMENT FOLDER}
python=${PYTHON:-/usr/bin/python3}

die() { printf 'inboxd: %s\n' "$*" >&2; exit 1; }
minor_of() { "$1" -c 'import sys; print(sys.version_info.minor)'; }

command -v dpkg-deb >/dev/null || die 'needs dpkg-deb: apt-get install dpkg'
minor=$(minor_of "$environment/bin/python")
[ "$(minor_of "$python")" = "$minor" ] ||
    die "$python is not Python 3.$minor, for which $environment was made; name one: make deb PYTHON=$python"
version=$("$environment/bin/python" -c 'import inboxd; print(inboxd.__version__)')
architecture=$(dpkg --print-architecture)

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
home=$stage/opt/inboxd
packages=$home/lib/python3.$minor/site-packages

put() { install -D -m "${3:-644}" "$1" "$stage$2"; }

# --- the program --------------------------------------------------------------------------------------------------

"$python" -m venv --without-pip --symlinks "$home"
sed -i '/^command = /d' "$home/pyvenv.cfg"                      # where it was built is nobody's business
rm -f "$home"/bin/*ctivate*
cp -R "$environment/lib/python3.$minor/site-packages/." "$packages"
find "$packages" -name __pycache__ -prune -exec rm -rf {} +
rm -f "$packages"/inboxd-*.dist-info/direct_url.json
# Nothing may write there later, so it is compiled now; without times, which packing may change.
"$home/bin/python" -m compileall -q --invalidation-mode unchecked-hash -s "$stage" -p / "$packages"
printf '#!/opt/inboxd/bin/python\nfrom inboxd.cli import main\n\nmain()\n' >"$home/bin/inboxd"
chmod 755 "$home/bin/inboxd"
install -d "$stage/usr/bin"
ln -s /opt/inboxd/bin/inboxd "$stage/usr/bin/inboxd"

# --- the service --------------------------------------------------------------------------------------------------

for unit in inboxd.service inboxd@.service; do
    put "$source/systemd/$unit" "/lib/systemd/system/$unit"
done
put "$source/systemd/sysusers.d/inboxd.conf" /usr/lib/sysusers.d/inboxd.conf
put "$source/systemd/tmpfiles.d/inboxd.conf" /usr/lib/tmpfiles.d/inboxd.conf
put "$source/systemd/logrotate.d/inboxd" /etc/logrotate.d/inboxd
for drop_in in "$source"/systemd/inboxd.service.d/*.conf; do
    put "$drop_in" "/opt/inboxd/share/$(basename "$drop_in")"
done
put "$source/systemd/inboxd.toml" /opt/inboxd/share/inboxd.toml

# --- what is read -------------------------------------------------------------------------------------------------

documents=/usr/share/doc/inboxd
put "$source/LICENSE" "$documents/copyright"
put "$source/README.md" "$documents/README.md"
for document in "$source"/docs/*.md; do
    put "$document" "$documents/docs/$(basename "$document")"
done
put "$source/CHANGELOG.md" "$documents/changelog"
gzip -9n "$stage$documents/changelog"
run() { PYTHONPATH=$packages "$home/bin/python" "$@"; }
install -d "$stage/usr/share/man/man1"
run -m inboxd.cli.man | gzip -9n >"$stage/usr/share/man/man1/inboxd.1.gz"
while read -r shell place; do
    install -d "$(dirname "$stage$place")"
    _INBOXD_COMPLETE=${shell}_source run -m inboxd >"$stage$place"
done <<PLACES
bash /usr/share/bash-completion/completions/inboxd
zsh /usr/share/zsh/vendor-completions/_inboxd
fish /usr/share/fish/vendor_completions.d/inboxd.fish
PLACES

# --- the package --------------------------------------------------------------------------------------------------

install -d "$stage/DEBIAN"
for script in preinst postinst prerm postrm; do
    install -m 755 "$here/$script" "$stage/DEBIAN/$script"
done
echo /etc/logrotate.d/inboxd >"$stage/DEBIAN/conffiles"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@SIZE@/$(du -sk "$stage" | cut -f 1)/" \
    -e "s/@MINOR@/$minor/" -e "s/@NEXT@/$((minor + 1))/" "$here/control" >"$stage/DEBIAN/control"
(cd "$stage" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
mkdir -p "$folder"
dpkg-deb --root-owner-group -Zzstd -z6 --build "$stage" "$folder/inboxd_${version}_${architecture}.deb" >/dev/null
printf '%s\n' "$folder/inboxd_${version}_${architecture}.deb"
