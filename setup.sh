#!/bin/sh
# Makes .venv with Python 3.12 and the packages of requirements.txt. Called by the Makefile.
# .venv/ready is written last, so that an environment that was not finished is never taken for a whole one.
set -eu
cd "$(dirname "$0")"

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# uv: on PATH, else by pip into an environment of its own
uv=$(command -v uv || true)
if [ -z "$uv" ]; then
    uv=.uv/bin/uv
    if ! "$uv" --version >/dev/null 2>&1; then
        rm -rf .uv
        for python in python3 /usr/bin/python3 python3.12 python; do
            "$python" -m venv .uv >/dev/null 2>&1 && break
            rm -rf .uv
        done
        [ -x .uv/bin/python ] || fail "no uv, and no python3 that makes environments: install uv (https://docs.astral.sh/uv) or python3-venv"
        say "getting uv by pip into .uv"
        .uv/bin/python -m pip install --quiet --disable-pip-version-check uv ||
            fail "pip could not install uv (see above): install uv yourself (https://docs.astral.sh/uv)"
    fi
fi

if [ -e .venv/ready ] && [ "$(version .venv/bin/python)" = 3.12 ]; then
    say "bringing .venv up to date"
    rm .venv/ready
else
    # an explicit path, because a pyenv shim may exist and not run, and uv would rather download than ask pyenv
    found=""
    for candidate in "$(command -v python3.12 || true)" \
        "$(pyenv root 2>/dev/null || true)"/versions/3.12*/bin/python \
        "${HOME:-}"/.pyenv/versions/3.12*/bin/python /usr/bin/python3.12 /usr/local/bin/python3.12; do
        if [ "$(version "$candidate")" = 3.12 ]; then
            found=$("$candidate" -c 'import sys; print(sys.executable)')
            break
        fi
    done
    say "making .venv with ${found:-a Python 3.12 that uv brings}"
    rm -rf .venv
    "$uv" venv --quiet --python "${found:-3.12}" .venv || true
    [ "$(version .venv/bin/python)" = 3.12 ] ||
        fail "no Python 3.12 found, and uv could not bring one: install Python 3.12 (package python3.12, pyenv, or python.org), then run make again"
fi

say "installing requirements.txt (about 3 GB to download the first time)"
"$uv" pip install --quiet --python .venv/bin/python -r requirements.txt ||
    fail "packages could not be installed (see above); run make again when that is mended"
touch .venv/ready
say "ready"
