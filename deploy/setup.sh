#!/usr/bin/env bash
# Makes the virtual environment with uv in it: setup.sh VENV UV_VERSION. Does nothing where it is in place.
set -euo pipefail
venv=$1
version=$2

suits() { "$1" -c "import sys; $2; sys.exit(not (3, 11) <= sys.version_info < (3, 15))" 2>/dev/null; }

# The system's own first: distributions build it with optimizations that many others lack, and it is up to twice as fast.
# One that cannot make environments is taken only if no other can.
candidates="/usr/bin/python3.14 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 python3.14 python3.13 python3.12 python3.11 python3"
for ability in "from ensurepip import version" pass; do
  for python in $candidates; do
    suits "$python" "$ability" && break 2
    python=
  done
done
if [ -z "${python:-}" ]; then
  echo "fleetcast needs Python 3.11, 3.12, 3.13 or 3.14, and none was found: install it (Debian: apt-get install python3 python3-venv)." >&2
  exit 1
fi

make_venv() { "$python" -m venv "$venv" 2>&1; }
if [ ! -x "$venv/bin/pip" ]; then
  rm -rf "$venv"
  if ! message=$(make_venv); then
    package=$(basename "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      apt-get install -y -q "$package" >/dev/null || { apt-get update -q >/dev/null && apt-get install -y -q "$package" >/dev/null; }
      rm -rf "$venv"
      make_venv
    else
      printf '%s\nInstall %s, then try again.\n' "$message" "$package" >&2
      exit 1
    fi
  fi
fi
if [ "$("$venv/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$version" ]; then
  "$venv/bin/pip" install --quiet --disable-pip-version-check "uv==$version"
fi
