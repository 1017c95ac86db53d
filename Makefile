# make test is the README's second command; it is what CI runs.
.DEFAULT_GOAL := build
GO      ?= go
PYTHON  ?= python3
TOOL    := $(GO) tool -modfile=tools/go.mod
FUZZ    ?= 60s
VENV    := .venv

.PHONY: build model test check vet lint vuln fmt generate-check generate unit race purego neon exact cross fuzz sdk smoke clean

build: ## the binary, in bin/
	$(GO) build -o bin/kvasir ./cmd/kvasir

model: build ## the default model, fetched once into the user's cache directory
	bin/kvasir pull

test: check unit race purego neon cross fuzz sdk smoke ## everything

check: fmt vet lint vuln generate-check

fmt:
	@bad=$$(gofmt -l cmd internal tools test 2>/dev/null); [ -z "$$bad" ] || { echo "not formatted:"; echo "$$bad"; exit 1; }

vet:
	$(GO) vet ./...
	cd internal/kernel/_asm && $(GO) vet ./...

lint:
	$(TOOL) staticcheck ./...

# The vulnerability database is on the network: where it does not answer, that is said and the rest goes on.
vuln:
	@out=$$($(TOOL) govulncheck ./... 2>&1); s=$$?; \
	if [ $$s -ne 0 ] && echo "$$out" | grep -qE 'fetching vulnerabilities|dial tcp|no such host|connection refused|403|404|502'; then echo "govulncheck: the database does not answer, not checked"; \
	else echo "$$out"; exit $$s; fi

generate:
	$(GO) generate ./...

# Generated assembly must be what the generators give.
generate-check:
	@tmp=$$(mktemp -d); cp -r internal/kernel $$tmp/before; $(GO) generate ./internal/kernel/... ; \
	diff -r $$tmp/before internal/kernel || { echo "generated files differ from their generators: run make generate"; rm -rf $$tmp; exit 1; }; rm -rf $$tmp

# Packages whose tests keep all processors busy run one after the other: beside each other they would only wait for each other.
HEAVY := ./internal/engine ./internal/sched ./internal/pipeline

unit: model
	$(GO) test -count=1 $$($(GO) list ./... | grep -vE '/internal/(engine|sched|pipeline)$$')
	$(GO) test -count=1 -p 1 $(HEAVY)

race:
	$(GO) test -count=1 -race -short -p 1 ./internal/team ./internal/cache ./internal/sched ./internal/pipeline ./internal/server

# The portable kernels, and the exactness tests on them.
purego:
	$(GO) test -count=1 -tags purego -short ./internal/kernel/...
	$(GO) test -count=1 -tags purego -short -run 'Prefix|Matrix|Join|Generated' ./internal/sched

# The arm64 kernels and a part of the exactness tests on them: under emulation, unless this is an arm64 machine.
neon:
	cd internal/kernel/_asm && $(GO) test -count=1 ./a64
	@if [ "$$($(GO) env GOHOSTARCH)" = arm64 ]; then on=; \
	elif command -v qemu-aarch64 >/dev/null; then on="-exec=qemu-aarch64 -cpu max"; export GOOS=linux GOARCH=arm64; \
	else echo "make neon runs arm64 code with qemu-aarch64, which is not installed: apt-get install qemu-user"; exit 1; fi; \
	set -ex; $(GO) test -count=1 -short $${on:+"$$on"} ./internal/kernel/...; \
	$(GO) test -count=1 -short -run 'Join|Generated' $${on:+"$$on"} ./internal/sched

cross:
	for t in linux/arm64 darwin/arm64 windows/amd64; do echo "build $$t"; GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build -o /dev/null ./cmd/kvasir || exit 1; done
	GOARCH=arm64 $(GO) vet ./internal/kernel/...

fuzz: ## each fuzz target for FUZZ
	GO="$(GO)" test/fuzz.sh $(FUZZ)

$(VENV)/ok: test/sdk/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -r test/sdk/requirements.txt
	touch $@

sdk: model $(VENV)/ok ## the Python SDK against a running server
	$(VENV)/bin/python -m pytest -q test/sdk

smoke: model $(VENV)/ok ## the caching battery and the reference values over HTTP
	$(VENV)/bin/python test/smoke.py bin/kvasir

clean:
	rm -rf bin $(VENV)
