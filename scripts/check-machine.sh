#!/bin/sh
# Says in one line what is missing to build, with the command that installs it, and
# prints the path of a fit Python.  Usage: check-machine.sh [python]
# Exit status 1 when something is missing.
set -u

# what the package is called here: apt-name dnf-name apk-name
install_hint() {
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo "
    if command -v apt-get >/dev/null 2>&1; then
        echo "${sudo}apt-get update && ${sudo}apt-get install -y $1"
    elif command -v dnf >/dev/null 2>&1; then
        echo "${sudo}dnf install -y $2"
    elif command -v apk >/dev/null 2>&1; then
        echo "${sudo}apk add $3"
    elif command -v brew >/dev/null 2>&1; then
        echo "brew install python@3.12 (and xcode-select --install)"
    else
        echo "your system's package for: $1"
    fi
}

missing() { # what, apt, dnf, apk
    echo "tenant_proxy needs $1: run   $(install_hint "$2" "$3" "$4")" >&2
    exit 1
}

fit() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

python=""
for candidate in ${1:-python3 python3.13 python3.12 python3.11 python3.14}; do
    if fit "$candidate"; then
        python=$("$candidate" -c 'import sys; print(sys.executable)')
        break
    fi
done
[ -n "$python" ] || missing "Python >= 3.11${1:+ ($1 is not)}" python3 python3.12 python3

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')

"$python" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
    missing "Python's venv module" "python$version-venv" "python$version" py3-virtualenv
[ -f "$include/Python.h" ] ||
    missing "Python's headers (Python.h)" "python$version-dev" "python$version-devel" python3-dev

cc=${CC:-$("$python" -c 'import sysconfig; print((sysconfig.get_config_var("CC") or "cc").split()[0])')}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
echo '#include <stdlib.h>
int main(void) { return 0; }' >"$dir/t.c"
# shellcheck disable=SC2086  # CC may carry options
$cc -o "$dir/t" "$dir/t.c" >/dev/null 2>&1 || missing "a C compiler ($cc)" gcc\ libc6-dev gcc gcc\ musl-dev

echo "$python"
