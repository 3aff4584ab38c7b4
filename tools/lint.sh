#!/usr/bin/env bash
# Style, types and the rule that rooms depend downwards only.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/ruff format --check -q .
.venv/bin/ruff check -q .
.venv/bin/mypy --no-error-summary
.venv/bin/lint-imports >/dev/null 2>&1 || .venv/bin/lint-imports
