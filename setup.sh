#!/bin/sh
# Makes .venv with the packages of requirements.txt. Called by the Makefile. It reads:
#   NNDL_PYTHON   3.12 or 3.13 (default: the Python that .venv has, else 3.12)
#   NNDL_CPU      1: torch without CUDA, from PyTorch's own index (Linux; elsewhere torch has no CUDA anyway)
# Another Python or another torch than .venv has: .venv is made anew.
# .venv/ready is written last, so that an environment that was not finished is never taken for a whole one.
set -eu
cd "$(dirname "$0")"

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
torch() { "$1" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true; }

case $(uname -s) in
    Linux) ;;
    Darwin) NNDL_CPU=0 ;;
    *) fail "for Linux (WSL too) and macOS; elsewhere use the way without make in README.md" ;;
esac
case ${NNDL_PYTHON:-} in
    "" | 3.12 | 3.13) ;;
    *) fail "NNDL_PYTHON=$NNDL_PYTHON: it can be 3.12 or 3.13" ;;
esac
case ${NNDL_CPU:-} in
    "" | 0 | 1) ;;
    *) fail "NNDL_CPU=$NNDL_CPU: it can be 1 (torch without CUDA) or 0" ;;
esac

# uv: on PATH, else by pip into an environment of its own
uv=$(command -v uv || true)
[ -n "$uv" ] && "$uv" --version >/dev/null 2>&1 || uv=.uv/bin/uv
if ! "$uv" --version >/dev/null 2>&1; then
    rm -rf .uv
    for python in python3 /usr/bin/python3 python3.12 python3.13 python; do
        "$python" -m venv .uv >/dev/null 2>&1 && break
        rm -rf .uv
    done
    [ -x .uv/bin/python ] || fail "no uv, and no python3 that makes environments: install uv (https://docs.astral.sh/uv) or python3-venv"
    say "getting uv by pip into .uv"
    .uv/bin/python -m pip install --quiet --disable-pip-version-check uv ||
        fail "pip could not install uv (see above): install uv yourself (https://docs.astral.sh/uv)"
fi

# what .venv has
python=$(version .venv/bin/python)
case $python in 3.12 | 3.13) ;; *) python="" ;; esac
case $(torch .venv/bin/python) in *+cpu) cpu=1 ;; *) cpu=0 ;; esac

if [ -e .venv/ready ] && [ "${NNDL_PYTHON:-$python}" = "${python:-none}" ] && [ "${NNDL_CPU:-$cpu}" = "$cpu" ]; then
    say "bringing .venv up to date"
    rm .venv/ready
else
    python=${NNDL_PYTHON:-${python:-3.12}}
    # an explicit path, because a pyenv shim may exist and not run, and uv would rather download than ask pyenv
    found=""
    for candidate in "$(command -v "python$python" || true)" \
        "$(pyenv root 2>/dev/null || true)"/versions/"$python".*/bin/python \
        "${HOME:-}"/.pyenv/versions/"$python".*/bin/python "/usr/bin/python$python" "/usr/local/bin/python$python"; do
        if [ "$(version "$candidate")" = "$python" ]; then
            found=$("$candidate" -c 'import sys; print(sys.executable)')
            break
        fi
    done
    say "making .venv with ${found:-a Python $python that uv brings}"
    rm -rf .venv
    "$uv" venv --quiet --python "${found:-$python}" .venv || true
    [ "$(version .venv/bin/python)" = "$python" ] ||
        fail "no Python $python found, and uv could not bring one: install it (package python$python, pyenv, or python.org), then run make again"
fi

cpu=${NNDL_CPU:-$cpu}
again="run the same command again when that is mended"
if [ "$cpu" = 1 ]; then
    say "installing requirements.in with torch for the CPU, other pins as in requirements.txt"
    sed '/^-e /d' requirements.txt >.venv/pins.txt
    "$uv" pip install --quiet --compile-bytecode --python .venv/bin/python --torch-backend cpu -r requirements.in -c .venv/pins.txt ||
        fail "packages could not be installed (see above); $again"
else
    say "installing requirements.txt (about 3 GB to download the first time)"
    # compiled once here: where Python may not write its bytecode, each kernel would compile torch again
    "$uv" pip install --quiet --compile-bytecode --python .venv/bin/python -r requirements.txt ||
        fail "packages could not be installed (see above); $again"
fi

# The package nndl stands in this folder: by a way from .venv, not by the folder's full name, which Python 3.12 could not
# read under a locale that lacks its letters. (A new file: uv may share the old one with its cache.)
for link in .venv/lib/python*/site-packages/*nndl.pth; do
    [ -f "$link" ] || continue
    printf '../../../..\n' >.venv/nndl.pth
    mv .venv/nndl.pth "$link"
done
touch .venv/ready
say "ready"
