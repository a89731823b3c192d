# ChatXRay. `make help` lists the targets; `make demo` shows the product.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VERSION ?= $(shell git describe --tags --dirty 2>/dev/null || echo 0.1.0-dev$$(git rev-parse --short HEAD 2>/dev/null | sed 's/^/+/'))
GPU     ?=
BENCH   ?= .
SEED    ?= 1
FAULTS  ?= 300
TOPOLOGY ?= one
export STUDY KEEP

GO_BUILD := CGO_ENABLED=1 go build -ldflags "-s -w -X main.version=$(VERSION)"
TOOLS    := bash scripts/tool.sh

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  STUDY=path  the study of make demo      KEEP=1  leaves the service of make demo running\n  GPU=1       CUDA instead of the CPU      BENCH=x  only benchmarks that match x\n  SEED=n FAULTS=n TOPOLOGY=one|split|s3  the schedule of make chaos\n'

.PHONY: build
build: ## Build bin/chatxray.
	@bash scripts/need.sh go cc
	$(GO_BUILD) -o bin/chatxray ./cmd/chatxray

.PHONY: parts
parts: build ## Fetch the run-time parts (ONNX Runtime, codecs, base model) into the cache. GPU=1 for CUDA.
	@bash scripts/need.sh python3 npm
	bin/chatxray parts fetch $(if $(filter 1 true yes,$(GPU)),--gpu)

.PHONY: demo
demo: parts ## Start the service, send it a chest radiograph, show the report. STUDY=path, KEEP=1.
	@bash scripts/demo.sh

.PHONY: test
test: parts ## Run every test: Go with the race detector, end to end, Python. Ends with the list of skipped tests.
	@bash scripts/test.sh

.PHONY: chaos
chaos: build ## Kill, stop, empty and fill everything while studies are read, then compare. SEED=n, FAULTS=n, TOPOLOGY=one, split, s3.
	@summary=$$(mktemp); trap 'rm -f "$$summary"' EXIT; status=0; \
	CHAOS_SEED=$(SEED) CHAOS_FAULTS=$(FAULTS) CHAOS_TOPOLOGY=$(TOPOLOGY) CHAOS_READER=$(READER) CHAOS_KINDS='$(KINDS)' CHAOS_BINARY=$(or $(BINARY),$(CURDIR)/bin/chatxray) CHAOS_SUMMARY="$$summary" \
	  go test ./test/chaos -run '^TestChaos$$' -count=1 -timeout 3h -v || status=$$?; \
	if [ -s "$$summary" ]; then cat "$$summary"; else echo 'chaos: FAILED before anything was compared, see above'; fi; exit "$$status"

.PHONY: lint
lint: ## Check format, Go code, scripts, chart and Dockerfile.
	@bash scripts/lint.sh

.PHONY: fmt
fmt: ## Format the Go code.
	gofmt -w $$(git ls-files -co --exclude-standard '*.go')

.PHONY: bench
bench: parts ## Run the benchmarks: Go's own, then the comparisons of bench/. BENCH=regexp chooses.
	@bash scripts/bench.sh '$(BENCH)'

.PHONY: notices
notices: ## Write THIRD_PARTY_NOTICES.md anew from the modules of the build and the run-time parts.
	go run ./.ci/notices > THIRD_PARTY_NOTICES.md.new
	mv THIRD_PARTY_NOTICES.md.new THIRD_PARTY_NOTICES.md

.PHONY: clean
clean: ## Remove what was built and what the demo left. The caches stay.
	rm -rf bin dist demo-out
