# make help lists the targets.
SHELL := /bin/sh
GO ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help demo test race race-short lint fmt bench chaos laws mutants fuzz build postgres prometheus

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

build: ## build bin/partnersync
	$(GO) build -o bin/partnersync ./cmd/partnersync

demo: postgres build ## everything at once on an empty machine, every sample event, a table of what arrived
	./bin/partnersync demo $(ARGS)

test: postgres prometheus ## all tests, with a real Postgres
	$(GO) test -timeout 10m ./...

race: postgres prometheus ## all tests under the race detector
	$(GO) test -race -timeout 20m ./...

race-short: postgres ## the rules, and some tests of jobs, under the race detector
	$(GO) test -race -timeout 10m ./records
	$(GO) test -race -timeout 10m -run 'TestRecordStaysShut|TestOneBadRow|TestKeysThatMeet|TestStoppedByHand|TestPanicWhileSending|TestEventsPerJob' ./jobs

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

fmt: ## format the code
	gofmt -w .

bench: postgres ## measure, about 15 minutes; ARGS="--list" lists the parts, ARGS="--rows 10000000" adds big tables (40 GB)
	$(GO) run ./internal/cmd/bench $(ARGS)

chaos: postgres ## kill, freeze, cut off and fail everything under load, and judge every write; 5 to 8 minutes, ARGS="--seconds 3600" goes on
	$(GO) run ./internal/cmd/chaos $(ARGS)

laws: postgres ## play histories against a model CRM, and with every crash, for a minute each; ARGS=1h plays longer
	PARTNERSYNC_LAWS=$(or $(ARGS),1m) $(GO) test -timeout 0 -run 'TestModel|TestLaws|TestEveryCrashPoint|TestCrashesAtRandom' ./records ./jobs

mutants: postgres ## plant deliberate faults, one at a time, and see that the tests notice; ARGS="NAME..." plants some
	./scripts/mutants.sh $(ARGS)

fuzz: ## fuzz the parsers for a minute each
	./scripts/fuzz.sh $(ARGS)

prometheus: ## find Prometheus and promtool for the tests of dashboards and alerts, or fetch them where that is allowed
	@./scripts/install-prometheus.sh

postgres: ## find PostgreSQL, or install it where that is allowed
	@./scripts/install-postgres.sh
