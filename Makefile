# SPDX-License-Identifier: GPL-2.0
#
# For people: every target runs a script of tools/hmm_devmem, where the options
# are. The kernel's own build does not read this file.

TOOLS := tools/hmm_devmem

.DEFAULT_GOAL := help
.PHONY: help demo check check-tools check-debug check-kcsan check-ci coverage deps kernel build kunit selftests sample \
	stress fuzz upstream bench bench-contention bench-policy \
	matrix lint docs picture patches shell graft clean clean-cache

help:		## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F '\t' '{ printf "  make %-16s %s\n", $$1, $$2 }'
	@echo "Variables: KERNEL_SRC=DIR (another kernel tree), LLVM=-19 (clang), JOBS=N"

demo: build	## from nothing to a process whose pages live on a device, in a guest
	@$(TOOLS)/suites/demo

check: deps	## what a change must pass: lint, KUnit, selftests, stress, fuzz, upstream's suite
	@$(TOOLS)/build/deps lint docs
	@$(TOOLS)/suites/check

check-tools: deps ## what a change of the tools must pass: that they do their work, and can be red
	@$(TOOLS)/build/deps lint docs bench
	@$(TOOLS)/suites/check --tools

check-debug: deps ## all suites on a kernel with all checks on: hours
	@$(TOOLS)/suites/check --debug

check-kcsan: deps ## KUnit and the selftests on a kernel that looks for data races
	@$(TOOLS)/suites/check --kcsan

check-ci: deps	## what .ci/run runs: check, check-tools and a part of check-debug
	@$(TOOLS)/build/deps lint docs bench
	@$(TOOLS)/suites/check --ci

deps:		## install the Debian packages that are missing
	@$(TOOLS)/build/deps

kernel: deps	## fetch the kernel source into the cache
	@$(TOOLS)/build/fetch >/dev/null

build: kernel	## build the test kernel with this clone's code
	@$(TOOLS)/build/build test

kunit: build	## run the KUnit suites in a guest
	@$(TOOLS)/suites/kunit

selftests: build ## run tools/testing/selftests/hmm_devmem in a guest
	@$(TOOLS)/suites/selftests

sample: build	## run the sample driver, on a PCI function that is looked into and unplugged
	@$(TOOLS)/suites/sample

stress: build	## SECONDS=N SEED=N: everything at once against a record, with devices coming and going
	@$(TOOLS)/suites/stress $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

fuzz: build	## SECONDS=N SEED=N: call the ioctls of all device nodes with anything
	@$(TOOLS)/suites/fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

upstream: build	## run the kernel's own hmm-tests, unmodified, on our driver
	@$(TOOLS)/suites/upstream

bench: build	## measure: instructions per page, next to upstream's driver and bare core
	@$(TOOLS)/build/deps bench
	@$(TOOLS)/bench/bench

bench-contention: build ## measure: locks that 8 virtual CPUs wait for (builds a kernel)
	@$(TOOLS)/build/build lockstat
	@$(TOOLS)/bench/bench --contention

bench-policy:	## MIB=N SEED=N: compare what policies of eviction move, relative to the optimum
	@$(TOOLS)/build/deps bench
	@$(TOOLS)/bench/policy $(if $(MIB),--mib $(MIB)) $(if $(SEED),--seed $(SEED))

coverage: build	## which lines and branches the suites execute
	@$(TOOLS)/build/deps coverage
	@$(TOOLS)/build/build gcov
	@$(TOOLS)/suites/coverage

matrix: build	## compile our folders in many configurations
	@$(TOOLS)/build/deps matrix
	@$(TOOLS)/lint/matrix

lint: build	## checkpatch, sparse, kernel-doc, W=1, shellcheck
	@$(TOOLS)/build/deps lint docs
	@$(TOOLS)/lint/lint

docs: kernel	## make web pages of the documentation
	@$(TOOLS)/build/deps docs
	@$(TOOLS)/lint/docs

picture:	## draw the picture of the README
	@$(TOOLS)/build/deps docs
	@$(TOOLS)/lint/picture

patches: kernel	## write the series of patches that a submission would be
	@$(TOOLS)/series/patches

shell: build	## an interactive shell in a guest (leave it with exit)
	@$(TOOLS)/guest/guest --tty -- sh -l

graft:		## DEST=<kernel tree>: copy this clone's code into it
	@$(if $(DEST),,$(error set DEST=<kernel tree>))
	@$(TOOLS)/build/graft "$(DEST)"

clean:		## remove what builds left in this clone
	@$(if $(wildcard .git),git clean -qfdX,find . -name '*.o' -delete)

clean-cache:	## remove the cache: kernel source, builds, logs
	@$(TOOLS)/build/clean
