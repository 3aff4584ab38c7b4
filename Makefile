# The two commands of the README are `make demo` and `make test`; both set up whatever they need.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs bench bench-pods clean cluster-up cluster-down e2e e2e-kind

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

docs: ## write again what is generated: docs/options.md, the chart's README, deploy/kubernetes.yaml
	@tools/setup.sh test
	@tools/docs.sh

bench: ## compare with other clients of object stores; WORK= CASES= PEERS= ROUNDS= for a part, QUICK=1 for a look
	@tools/setup.sh run
	@benchmarks/builds/build.sh
	@.venv/bin/python -m benchmarks $(if $(WORK),--work '$(WORK)') $(if $(CASES),--cases '$(CASES)') \
		$(if $(PEERS),--peers '$(PEERS)') $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(QUICK),--quick) \
		$(if $(SESSION),--session '$(SESSION)') $(if $(MODE),--mode '$(MODE)')

bench-pods: ## how soon a pod with a volume reads its first byte, or says why it cannot; writes benchmarks/RESULTS.md
	@tools/setup.sh test
	@tools/image.sh
	@.venv/bin/python -m benchmarks.pod_start
	@.venv/bin/python -m benchmarks.refusal_events

# A KUBECONFIG counts only if it is given to make: the one of a shell may lead to a cluster that means something to somebody.
given_kubeconfig = $(if $(filter command line,$(origin KUBECONFIG)),$(KUBECONFIG))
K8S_VERSION ?= 1.36
export K8S_VERSION
export CLUSTER

cluster-up: ## a Kubernetes node on this machine with driver and OSS emulator; CLUSTER=NAME for one of your own
	@tools/setup.sh test
	@tools/image.sh
	@.venv/bin/python -m tests.cluster.harness up

cluster-down: ## end the cluster of cluster-up; CLUSTER=NAME for that one
	@.venv/bin/python -m tests.cluster.harness down

e2e: ## end-to-end tests on a real node; K8S_VERSION=1.33 for the oldest, KUBECONFIG=FILE for a cluster of yours
	@tools/setup.sh test
	@tools/image.sh
	@KUBECONFIG_E2E='$(given_kubeconfig)' .venv/bin/python -m pytest $(if $(given_kubeconfig),,-n 3 --dist loadfile --no-loadscope-reorder) \
		tests/cluster $(ARGUMENTS)

e2e-kind: ## the same in a kind cluster, for people with Docker
	@tools/setup.sh test
	@tools/cluster-kind.sh $(ARGUMENTS)

clean: ## remove what the build made
	@rm -rf build dist *.egg-info csi/v1 .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .venv
