# SPDX-License-Identifier: Apache-2.0
#
# Everything here runs on one Debian 12 or 13 machine, as root; tools/lab fetches
# and builds what is missing into .cache (override: KEMARI_CACHE).

GO := $(shell tools/go.sh)
ifeq ($(GO),)
$(error tools/go.sh found no Go)
endif
# The lab builds what it boots with the same go, which it looks for by name.
export PATH := $(dir $(GO)):$(PATH)
# As it is shipped; and a C compiler that the lab is just installing is in nobody's way.
export CGO_ENABLED := 0
SCENARIO = $(GO) test -tags lab -count=1 -v -timeout 80m ./tests/scenario

.PHONY: all install test unit fuzz broken hvpatch hvpatch-test exerciser restore-one handover soak two-hosts lab-test demo bench failover

all:
	$(GO) build ./...

# Onto this host, or into DESTDIR; see docs/INSTALL.md.
install:
	install -d $(DESTDIR)/usr/sbin $(DESTDIR)/usr/share/man/man1 $(DESTDIR)/usr/share/man/man5 $(DESTDIR)/usr/share/man/man8
	$(GO) build -trimpath -o $(DESTDIR)/usr/sbin/ ./tools/kemari ./tools/kemarid
	install -D -m 755 tools/kemarid/block-kemari $(DESTDIR)/etc/xen/scripts/block-kemari
	install -D -m 644 -t $(DESTDIR)/usr/share/doc/kemari/examples docs/examples/*.c*
	install -m 755 -t $(DESTDIR)/usr/share/doc/kemari/examples docs/examples/fence-ipmi
	for page in kemari.1 kemari.conf.5 kemarid.8; do \
		pod2man --section=$${page##*.} --center=Kemari --release=kemari --name=$$(echo $${page%.*} | tr a-z A-Z) \
			docs/man/$$page.pod $(DESTDIR)/usr/share/man/man$${page##*.}/$$page || exit 1; \
	done

# What the README calls the test command.
test:
	tests/run.sh

unit:
	$(GO) vet ./... && $(GO) vet -tags lab ./tests/scenario
	test -z "$$($(GO) fmt ./...)"
	$(GO) test ./...

# Each parser of foreign bytes, with so many inputs. With a time, 20s, go test now and
# then fails by its own deadline.
FUZZTIME ?= 5000x
fuzz:
	@all=$$($(GO) test -list '^Fuzz' ./...) || { echo "$$all"; exit 1; }; \
	echo "$$all" | awk '/^Fuzz/ { name[++n] = $$1 } /^ok/ { for (i = 1; i <= n; i++) print name[i], $$2; n = 0 }' | \
	while read -r name package; do \
		echo "=== $$package $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; \
	done

broken:
	GO=$(GO) tests/broken.sh

hvpatch:
	hvpatch/build.sh

# The hypervisor's new C in user space, and the tests that read Xen's sources: its
# headers, its verifier of save files, its description of libxl's types, its examples.
hvpatch-test:
	xen=$$($(GO) run ./tools/lab cache xen-source) && \
	$(MAKE) -C hvpatch/tests XEN=$$xen run && \
	XEN_SRC=$$xen $(GO) test -count=1 ./xen/abi ./xen/kemariop ./toolstack/xlcfg ./toolstack/shell/xlstream

ROUNDS ?= 200
restore-one:
	ROUNDS=$(ROUNDS) $(SCENARIO) -run '^TestRestoreOne$$'

# Every operation of the hypervisor's interface, with its errors and edges.
exerciser:
	$(SCENARIO) -run '^TestExerciser$$'

# Guests given to the other host by an operator, rebooted and destroyed there; and
# the tests of xen/ that need a Xen.
handover:
	$(SCENARIO) -run '^TestHandOver$$'

# Power cuts at different instants, N times. SEED=... makes the same choices
# again, INSTANT=boot,idle takes some kinds only; see tests/scenario/soak_test.go.
N ?= 20
soak:
	N=$(N) $(SCENARIO) -run '^TestSoak$$' -timeout 8h

# Handover and soak on the same two hosts, which takes a minute less.
two-hosts:
	N=$(N) $(SCENARIO) -run '^TestTwoHosts$$'

# The lab itself.
lab-test:
	LAB=1 $(GO) test -count=1 -v ./tools/lab/lab

# The main job, step by step, for somebody who looks on.
demo:
	$(GO) run ./tests/demo

bench:
	$(SCENARIO) -run '^TestBench$$'

failover:
	$(SCENARIO) -run '^TestFailover'
