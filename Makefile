# The two commands of the README are `make demo` and `make test`; both set up whatever they need.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what demo needs (Debian packages, .venv)
	@tools/setup.sh run

demo: setup ## mount a bucket of the embedded OSS server through CSI, use it, clean up
	@.venv/bin/ossfuse demo

test: ## lint, type-check and run every test
	@tools/setup.sh test
	@tools/test.sh

lint: ## ruff, mypy --strict, import-linter
	@tools/setup.sh test
	@tools/lint.sh

docs: setup ## regenerate docs/options.md from the option table
	@.venv/bin/python -m csi.volume.table.document > docs/options.md

bench: ## compare with s3fs and rclone; writes benchmarks/RESULTS.md
	@tools/setup.sh run
	@benchmarks/run.sh

clean: ## remove what the build made
	@rm -rf build dist *.egg-info csi/v1 .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .venv
