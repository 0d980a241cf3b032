#!/usr/bin/env bash
# What README says of users' own code, from another folder: sweeps by two workers, one of them
# killed and resumed; then one line of the cell is edited, and its runs alone are run again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
place=${1:-$(mktemp -d)}
cp "$here"/lab.py "$here"/*.toml "$place"
cd "$place"

echo "== a training, and a measurement"
gradlab sweep training.toml --out training
gradlab sweep states.toml --out states

echo "== killed after its first chunks, and resumed"
gradlab sweep gradients.toml --out gradients --workers 2 &
until compgen -G "gradients/chunks/*.parquet" >/dev/null; do sleep 0.2; done
kill -9 $! && wait $! 2>/dev/null || true
gradlab sweep gradients.toml --out gradients --workers 2

echo "== one line of the cell edited"
sed -i 's/^KEEP = 0.9/KEEP = 0.5/' lab.py
gradlab sweep gradients.toml --out gradients | grep measured
