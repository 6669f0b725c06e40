# SPDX-License-Identifier: GPL-2.0
#
# For people: every target runs a script of tools/hmm_devmem, where the options
# are. The kernel's own build does not read this file.

TOOLS := tools/hmm_devmem

.DEFAULT_GOAL := help
.PHONY: help demo check check-debug check-kcsan coverage deps kernel build kunit selftests sample \
	stress fuzz upstream bench bench-contention matrix lint docs patches shell graft clean clean-cache

help:		## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F '\t' '{ printf "  make %-16s %s\n", $$1, $$2 }'
	@echo "Variables: KERNEL_SRC=DIR (another kernel tree), LLVM=-19 (clang), JOBS=N"

demo: build	## from nothing to a process whose pages live on a device, in a guest
	@$(TOOLS)/demo

check: build	## everything a change must pass: the tools, KUnit, selftests, upstream's suite, lint
	@$(TOOLS)/deps lint docs
	@$(TOOLS)/check

check-debug: build ## the rest of the suites on a kernel with all checks on: an hour
	@$(TOOLS)/check --debug

check-kcsan: build ## KUnit and the selftests on a kernel that looks for data races
	@$(TOOLS)/check --kcsan

deps:		## install the Debian packages that are missing
	@$(TOOLS)/deps

kernel: deps	## fetch the kernel source into the cache
	@$(TOOLS)/fetch >/dev/null

build: kernel	## build the test kernel with this clone's code
	@$(TOOLS)/build test

kunit: build	## run the KUnit suites in a guest
	@$(TOOLS)/kunit

selftests: build ## run tools/testing/selftests/hmm_devmem in a guest
	@$(TOOLS)/selftests

sample: build	## run the sample driver, on a PCI function that is looked into and unplugged
	@$(TOOLS)/sample

stress: build	## SECONDS=N SEED=N: everything at once against a record, with devices coming and going
	@$(TOOLS)/stress $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

fuzz: build	## SECONDS=N SEED=N: call the ioctls of all device nodes with anything
	@$(TOOLS)/fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

upstream: build	## run the kernel's own hmm-tests, unmodified, on our driver
	@$(TOOLS)/upstream

bench: build	## measure: instructions per page, next to upstream's driver and bare core
	@$(TOOLS)/deps bench
	@$(TOOLS)/bench

bench-contention: build ## measure: locks that 8 virtual CPUs wait for (builds a kernel)
	@$(TOOLS)/build lockstat
	@$(TOOLS)/bench --contention

coverage: build	## which lines and branches the suites execute
	@$(TOOLS)/deps coverage
	@$(TOOLS)/build gcov
	@$(TOOLS)/coverage

matrix: build	## compile our folders in many configurations
	@$(TOOLS)/deps matrix
	@$(TOOLS)/matrix

lint: build	## checkpatch, sparse, kernel-doc, W=1, shellcheck
	@$(TOOLS)/deps lint docs
	@$(TOOLS)/lint

docs: kernel	## make web pages of the documentation
	@$(TOOLS)/deps docs
	@$(TOOLS)/docs

patches: kernel	## write the series of patches that a submission would be
	@$(TOOLS)/patches

shell: build	## an interactive shell in a guest (leave it with exit)
	@$(TOOLS)/guest --tty -- sh -l

graft:		## DEST=<kernel tree>: copy this clone's code into it
	@$(if $(DEST),,$(error set DEST=<kernel tree>))
	@$(TOOLS)/graft "$(DEST)"

clean:		## remove what builds left in this clone
	@$(if $(wildcard .git),git clean -qfdX,find . -name '*.o' -delete)

clean-cache:	## remove the cache: kernel source, builds, logs
	@$(TOOLS)/clean-cache
