#!/bin/sh
# Installs the site agent of @site@ from this folder, without a network.
#   sudo sh install.sh [FOLDER]      into FOLDER, by default /opt/consortium; it must not exist yet
# PYTHON names another interpreter than python3; it must be Python @python@, for which the wheels are.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-/opt/consortium}
python=${PYTHON:-python3}
cd "$here"
sha256sum --check --quiet --strict SHA256SUMS || { echo "This folder is not as it was made. Get it again." >&2; exit 1; }
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$found" = "@python@" ] || { echo "$python is Python $found; the wheels are for @python@: PYTHON=python@python@ sh install.sh" >&2; exit 1; }
[ ! -e "$venv" ] || { echo "$venv exists. Name another folder, or move it away first." >&2; exit 1; }
"$python" -m venv "$venv"
"$venv/bin/python" -m pip --isolated --disable-pip-version-check install --quiet --no-index --find-links "$here/wheels" \
  --only-binary :all: --require-hashes --requirement requirements.txt
"$venv/bin/site-agent" --version
