#!/usr/bin/env bash
# In this folder, gradients.toml by two workers, killed after its first chunks and resumed.
set -euo pipefail
gradlab sweep gradients.toml --out gradients --workers 2 &
until compgen -G "gradients/chunks/*.parquet" >/dev/null; do sleep 0.2; done
kill -9 $! && wait $! 2>/dev/null || true
gradlab sweep gradients.toml --out gradients --workers 2
