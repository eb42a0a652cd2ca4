VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
CONFIG  ?= ecr-mirror.yaml
IMAGE   ?= ecr-mirror:$(VERSION)
FUZZTIME ?= 10s
BENCH ?= .
CLIENTS := docker dockerd dockerd-29 containerd ctr containerd-2 ctr-2 podman buildah skopeo buildkitd buildctl crane regctl helm docker-credential-ecr-login docker-registry nginx docker-compose ip systemd-analyze aws strace curl jq openssl zsh fish chromium runc etcd kube-apiserver cfn-lint terraform promtool prometheus
PROVIDER := registry.terraform.io/hashicorp/aws

.DEFAULT_GOAL := help

.PHONY: help
help: ## Print this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/ecr-mirror, a static binary
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ecr-mirror ./cmd/ecr-mirror

.PHONY: run
run: build ## Serve with CONFIG=ecr-mirror.yaml
	bin/ecr-mirror serve --config $(CONFIG)

.PHONY: demo
demo: ## Two emulated regions, a push, its event and the pull; ARGS=--once ends by itself
	go run ./cmd/ecr-mirror demo $(ARGS)

.PHONY: test
test: ## Run all tests under the race detector; end-to-end tests need the container clients (CI=true: all of them)
	go test -race -timeout 30m ./...
	cd registry/serve/parity && go test -race -mod=mod ./...
	@missing=; for c in $(CLIENTS); do command -v $$c >/dev/null || missing="$$missing $$c"; done; \
	[ -e /usr/share/bash-completion/bash_completion ] || missing="$$missing bash-completion"; \
	[ -n "$$(ls -d /opt/*/$(PROVIDER) /usr/share/terraform/plugins/$(PROVIDER) /usr/local/share/terraform/plugins/$(PROVIDER) ~/.terraform.d/plugins/$(PROVIDER) 2>/dev/null)" ] || missing="$$missing terraform-provider-aws"; \
	[ "$$(id -u)" = 0 ] || missing="$$missing root"; \
	[ -z "$$missing" ] || echo "left out: the tests that need:$$missing"

.PHONY: check
check: ## Check formatting, vet and staticcheck
	@bad=$$(gofmt -l .); [ -z "$$bad" ] || { printf 'not formatted (gofmt -w):\n%s\n' "$$bad"; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	cd registry/serve/parity && go vet -mod=mod ./...

.PHONY: e2e
e2e: ## Run only the end-to-end tests with real clients, verbosely
	go test -count=1 -v ./cmd/ecr-mirror/e2e

.PHONY: soak
soak: ## Storms for SOAK_TIME=10m (every fault of every upstream; SOAK_SEED=1), and SOAK_IMAGES=1000 pushed while mirrors are killed
	SOAK_TIME=$(or $(SOAK_TIME),10m) go test -race -count=1 -run '^TestStorm' -v -timeout 0 ./cmd/ecr-mirror/e2e
	SOAK_IMAGES=$(or $(SOAK_IMAGES),1000) go test -race -count=1 -run '^TestSoak' -v -timeout 60m ./cmd/ecr-mirror/e2e

.PHONY: bench
bench: ## Measure beside docker-registry and nginx, and print a table; BENCH=ColdImage BENCH_SCALE=0.25 BENCH_OBJECTS=100000
	go test -run '^$$' -bench 'Peers/($(BENCH))' -benchtime 1x -timeout 30m ./cmd/ecr-mirror/bench

.PHONY: fuzz
fuzz: ## Fuzz every parser of outside bytes for FUZZTIME=10s each
	@set -e; grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
		for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$$file"); do \
			echo "== $$name"; go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" </dev/null; \
		done; \
	done

.PHONY: vuln
vuln: ## Look for known vulnerabilities (asks vuln.go.dev)
	go tool govulncheck ./...

.PHONY: image
image: ## Build the container image IMAGE=ecr-mirror:VERSION
	docker build --build-arg VERSION=$(VERSION) -t $(IMAGE) .
