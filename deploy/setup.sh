#!/usr/bin/env bash
# Makes the virtual environment with uv in it: setup.sh VENV UV_VERSION. Does nothing where it is in place.
set -euo pipefail
venv=$1
version=$2

for python in python3.12 python3.11 python3; do
  if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
    break
  fi
  python=
done
if [ -z "${python:-}" ]; then
  echo "fleetcast needs Python 3.11 or 3.12, and none was found: install it (Debian: apt-get install python3.11 python3.11-venv)." >&2
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
