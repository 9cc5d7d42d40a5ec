#!/bin/bash
# Makes sure that these Debian packages are installed. Usage: tools/packages.sh PACKAGE…
#
# As root, or with a sudo that asks for no password, what is missing is installed; otherwise the line
# to run is printed, and this fails. No service is started: sshd in particular is wanted as a program,
# not as an open port.
set -euo pipefail

missing=()
for package; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$EUID" != 0 ]; then
    if sudo -n true 2>/dev/null; then
        exec sudo -n -- "$(realpath -- "$0")" "${missing[@]}"
    fi
    echo "missing: ${missing[*]}. Install them, then try again:" >&2
    echo "    sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

echo "installing: ${missing[*]}"
# Debian's way to say that a package may not start its services now.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install --quiet --quiet --yes --no-install-recommends "${missing[@]}" </dev/null >/dev/null
# Nor at the next boot. Of prometheus it is promtool that is wanted.
for installed in openssh-server:ssh prometheus:prometheus; do
    if [[ " ${missing[*]} " == *" ${installed%:*} "* ]] && command -v systemctl >/dev/null; then
        systemctl --quiet disable "${installed#*:}.service" 2>/dev/null || true
    fi
done
