#!/bin/sh
# Install tilemap and all it needs into a virtual environment, each file checked by its hash.
#
#   docker/install.sh VENV cpu    torch without CUDA; give pip PyTorch's CPU wheel index
#   docker/install.sh VENV cuda   torch with the CUDA libraries it wants; the host has the driver
#
# The image is made by it, and so is the folder that systemd and Slurm start tilemap from. VENV
# holds neither pip nor what made the wheel. PYTHON names the Python to use (default python3).
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

die() {
    printf 'error: %s\n' "$*" >&2
    exit 64
}

[ $# -eq 2 ] || die "two arguments are needed, VENV and cpu or cuda, got $#"
venv=$1 kind=$2
[ -f "$here/requirements-$kind.txt" ] || die "the second argument must be cpu or cuda, got $kind"
[ ! -e "$venv" ] || die "$venv must not exist; an environment is made anew, never changed"
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    die "the hashes are those of Python 3.11, got $("$python" --version); name another as PYTHON"

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools/venv"
pip() {
    "$tools/venv/bin/python" -m pip --disable-pip-version-check "$@"
}

pip install --quiet --require-hashes --no-deps --only-binary :all: \
    -r "$here/requirements-build.txt"
pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir "$tools/dist" "$here/.."

"$python" -m venv --without-pip "$venv"
venv=$(cd "$venv" && pwd) # what is written into scripts must hold from anywhere
pip --python "$venv/bin/python" install --quiet --require-hashes --no-deps --only-binary :all: \
    -r "$here/requirements-$kind.txt"
pip --python "$venv/bin/python" install --quiet --no-index --no-deps "$tools"/dist/tilemap-*.whl
pip --python "$venv/bin/python" check
for name in health certificates; do
    { printf '#!%s\n' "$venv/bin/python" && cat "$here/$name.py"; } >"$venv/bin/tilemap-$name"
    chmod 0755 "$venv/bin/tilemap-$name"
done
