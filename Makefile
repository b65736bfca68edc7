# SPDX-License-Identifier: Apache-2.0
#
# Everything here runs on one Debian 12 or 13 machine, as root; tools/lab fetches
# and builds what is missing into .cache (override: KEMARI_CACHE).

GO := $(shell tools/go.sh)
SCENARIO = $(GO) test -tags lab -count=1 -v -timeout 80m ./tests/scenario

.PHONY: all test unit broken hvpatch hvpatch-test restore-one demo soak bench

all:
	CGO_ENABLED=0 $(GO) build ./...

# What the README calls the test command.
test:
	tests/run.sh

unit:
	$(GO) vet ./... && $(GO) vet -tags lab ./tests/scenario
	test -z "$$($(GO) fmt ./...)"
	$(GO) test ./...

broken:
	GO=$(GO) tests/broken.sh

hvpatch:
	hvpatch/build.sh

hvpatch-test:
	$(MAKE) -C hvpatch/tests XEN=$$($(GO) run ./tools/lab cache xen-source) run

ROUNDS ?= 200
restore-one:
	ROUNDS=$(ROUNDS) $(SCENARIO) -run '^TestRestoreOne$$'
