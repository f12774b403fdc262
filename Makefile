# The targets people and CI use. Everything that can be a script is one
# (scripts/, demo/), so that it can be read and run without make.

GO      ?= go
FUZZTIME ?= 30s
SIM     ?= 50,100,250,500

# A Go that was unpacked to the usual place counts even when PATH forgets it.
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false

# The namespaces of demo and bench need root; the build does not.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)

.DEFAULT_GOAL := build
.PHONY: build build-arm64 test vm-test demo bench bench-vm lint fmt deps fuzz sim-mesh bench-ipam campaign-ipam clean help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## static binary for this machine: bin/weave
	$(BUILD) -ldflags '$(LDFLAGS)' -o bin/weave ./cmd/weave

build-arm64: ## the same for arm64, to prove that it compiles
	GOOS=linux GOARCH=arm64 $(BUILD) -ldflags '$(LDFLAGS)' -o bin/weave-arm64 ./cmd/weave

deps: ## install the system tools the tests use (Debian, Ubuntu), or say what is missing
	@scripts/deps.sh

test: deps build build-arm64 ## everything CI runs
	@GO='$(GO)' scripts/test.sh

vm-test: ## the part of test that needs a kernel with openvswitch, wireguard, netem, in QEMU
	@GO='$(GO)' scripts/vm.sh -quiet -list scripts/vm-tests.txt

.PHONY: vm-test-all
vm-test-all: ## every fault on every kernel path, in QEMU: some minutes
	@GO='$(GO)' scripts/vm.sh -limit 30m -timeout 25m -list scripts/vm-tests-all.txt

demo: deps build ## three encrypted hosts on this machine
	@$(SUDO) demo/demo.sh bin/weave

bench: build ## measure against veth, vxlan and wireguard-go; BENCHFLAGS='-short' for a quick look
	@scripts/deps.sh bench
	$(BUILD) -o bin/wireguard-go golang.zx2c4.com/wireguard
	$(BUILD) -o bin/bench ./bench
	$(SUDO) bin/bench -weave bin/weave -wireguard bin/wireguard-go $(BENCHFLAGS)

.PHONY: soak
soak: deps build ## ten minutes over a wire that loses, repeats, delays and changes packets
	WEAVE_SOAK=10m WEAVE_SOAK_RESULT=$(CURDIR)/bench/results/soak.txt WEAVE_BIN=$(CURDIR)/bin/weave \
		$(SUDO) env "PATH=$$PATH" $(GO) test -count=1 -timeout 20m -run 'TestSoak|TestRing|TestLossyJoins' -v ./internal/e2e/mesh

bench-vm: deps ## all paths, as ratios, in an emulated machine with openvswitch and wireguard: bench/results/vm.txt
	@scripts/deps.sh bench
	$(BUILD) -o bin/wireguard-go golang.zx2c4.com/wireguard
	$(BUILD) -o bin/bench ./bench
	scripts/bench-vm.sh $(BENCHFLAGS)

lint: ## go vet, gofmt, staticcheck
	@GO='$(GO)' scripts/lint.sh

fmt: ## gofmt the tree
	gofmt -l -w .

sim-mesh: ## simulate networks of SIM peers (50,100,250,500) in one process, 1,000 joins through a bad relay, 300 networks that flood and change
	WEAVE_SIM='$(SIM)' WEAVE_JOINS=1000 $(GO) test -run 'TestSimulation|TestLossyJoins' -count=1 -v -timeout 120m ./mesh
	WEAVE_FLOODS=300 $(GO) test -run TestFloodsDuringChanges -count=1 -v ./internal/forward

fuzz: ## run each fuzz target for FUZZTIME (30s)
	@GO='$(GO)' FUZZTIME='$(FUZZTIME)' scripts/fuzz.sh

bench-ipam: build ## measure the allocation of addresses: bench/results/ipam.txt
	@$(SUDO) env GO='$(GO)' PATH="$$PATH" scripts/bench-ipam.sh

campaign-ipam: ## a million schedules of address allocation, or SEEDS=FROM-TO; resumes
	@GO='$(GO)' SEEDS='$(SEEDS)' scripts/campaign-ipam.sh

clean: ## remove what was built
	rm -rf bin bench/out
