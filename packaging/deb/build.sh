#!/bin/sh
# Builds a Debian package of Hypnocast: ``packaging/deb/build.sh [cpu|gpu] [FOLDER]``.
# Needs dpkg-deb, Debian's own Python with venv, and a way to PyPI (or PIP_FIND_LINKS).
# The package carries an environment of its own in /opt/hypnocast; files by hash.
set -eu
variant=${1:-cpu}
out=$(mkdir -p "${2:-dist}" && cd "${2:-dist}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-/usr/bin/python3}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
minor=$("$python" -c 'import sys; print(sys.version_info.minor)')
architecture=$(dpkg --print-architecture)

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
"$python" -m venv "$stage/opt/hypnocast"
pip="$stage/opt/hypnocast/bin/pip --disable-pip-version-check"
$pip install -q --require-hashes --no-deps -r "$root/requirements/$variant.txt"
$pip install -q --no-deps "$root"
# What was built here runs there: nothing may name this folder.
grep -rlIZ "$stage" "$stage/opt/hypnocast" | xargs -0r sed -i "s#$stage##g"
find "$stage/opt" -name __pycache__ -prune -exec rm -rf {} +

install -D -m 644 "$root/systemd/hypnocast.service" "$stage/usr/lib/systemd/system/hypnocast.service"
install -m 644 "$root/systemd/hypnocast-bridge@.service" "$stage/usr/lib/systemd/system"
install -d "$stage/etc/hypnocast/bridge"
install -D -m 644 "$root/systemd/hypnocast.sysusers" "$stage/usr/lib/sysusers.d/hypnocast.conf"
install -D -m 644 "$root/systemd/hypnocast.tmpfiles" "$stage/usr/lib/tmpfiles.d/hypnocast.conf"
install -D -m 644 "$root/systemd/hypnocast.toml" "$stage/etc/hypnocast/hypnocast.toml"
doc="$stage/usr/share/doc/hypnocast"
install -d "$doc/systemd"
cp -r "$root/systemd/README.md" "$root/systemd/mosquitto" "$root/systemd/hypnocast.service.d" "$doc/systemd"
cp "$root/README.md" "$root/CHANGELOG.md" "$root/docs/hypnocast.toml" "$root/docs/bridge.md" "$doc"
cp "$root/LICENSE" "$doc/copyright"
install -D -m 644 "$root/docs/install.md" "$doc/docs/install.md"
install -d "$stage/usr/bin"
ln -s /opt/hypnocast/bin/hypnocast "$stage/usr/bin/hypnocast"

install -d "$stage/DEBIAN"
sed -e "s/@version@/$version/" -e "s/@architecture@/$architecture/" \
  -e "s/@python@/3.$minor/" -e "s/@next@/3.$((minor + 1))/" \
  -e "s/@size@/$(du -sk "$stage" | cut -f1)/" "$here/control" >"$stage/DEBIAN/control"
echo /etc/hypnocast/hypnocast.toml >"$stage/DEBIAN/conffiles"
for script in postinst prerm postrm; do
  install -m 755 "$here/$script" "$stage/DEBIAN/$script"
done
chmod -R u+rwX,go+rX,go-w "$stage"
# shellcheck disable=SC2086 # several options
dpkg-deb --root-owner-group ${DEB_COMPRESSION:--Zxz} --build "$stage" "$out/hypnocast_${version}_${architecture}.deb"
