# Attune: build, test and measure. `make help` lists the targets.
# B is the build folder (out of tree builds: `make B=build/clang CC=clang`); SAN=1 adds ASan and UBSan, SAN=thread TSan; V=1 shows commands.

B       ?= build
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
say      = $(if $(filter 1,$(V)),,@printf '  %-4s %s\n' $(1) $(2))
CC      ?= cc
AR      ?= ar
PKG_CONFIG ?= pkg-config
# What runs a program that was just built: an emulator where CC is a cross compiler (scripts/arm64.sh).
RUN     ?=
SUITE   ?= kernels host sampler sample_host swap examples fuzz arm64 cuda
JOBS    := $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0

PACKAGES := libjansson-dev nettle-dev libpopt-dev libpng-dev libutf8proc-dev check pkg-config

WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith
OPT      ?= -O2
CFLAGS   ?= -g
CPPFLAGS += -D_GNU_SOURCE -DATTUNE_VERSION='"$(VERSION)"' -DATTUNE_PLUGIN_DIR='"$(PREFIX)/lib/attune"' -Ihost_api -I.
ALL_CFLAGS = -std=c11 $(WARN) $(OPT) -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno -pthread -MMD -MP $(ABI_HEADERS:%=-I%) $(CPPFLAGS) $(CFLAGS)
LDFLAGS  += -Wl,-z,noexecstack -Wl,-z,relro -Wl,-z,now -Wl,--as-needed -pthread
ifdef SAN
SANITIZERS  := $(if $(filter thread,$(SAN)),-fsanitize=thread,-fsanitize=address -fsanitize=undefined -fno-sanitize-recover=undefined)
ALL_CFLAGS += $(SANITIZERS) -fno-omit-frame-pointer
LDFLAGS    += $(filter -fsanitize=%,$(SANITIZERS))
endif

# Libraries by room; each is named, with the reason, in the README.
HOST_LIBS    = $(shell $(PKG_CONFIG) --libs jansson nettle) -ldl -lm
SAMPLER_LIBS = $(shell $(PKG_CONFIG) --libs jansson libutf8proc) -lm
CLI_LIBS     = $(shell $(PKG_CONFIG) --libs popt libpng jansson nettle) -lm
CHECK_LIBS   = $(shell $(PKG_CONFIG) --libs check) -lm

obj = $(patsubst %.c,$(B)/obj/%.o,$(wildcard $(1)))

HOST_OBJ    := $(call obj,host_api/*.c) $(B)/obj/gen/self_test_bits.o
REFERENCE_OBJ := $(call obj,kernels/reference/*.c)
KERNEL_OBJ  := $(REFERENCE_OBJ) $(call obj,kernels/cpu/*.c)
CPU_OBJ     := $(call obj,plugin/cpu/*.c) $(B)/obj/plugin/layout.o
SAMPLER_OBJ := $(call obj,plugin/sampler/*.c plugin/cpu/ops/*.c) $(B)/obj/plugin/cpu/identify.o
CLI_OBJ     := $(call obj,sample_host/*.c)
TEST_OBJ    := $(call obj,tests/support/*.c)
FIXTURES    := $(patsubst tests/fixtures/%.c,$(B)/tests/fixtures/%.so,$(wildcard tests/fixtures/*.c))
PRELOADS    := $(patsubst tests/preload/%.c,$(B)/tests/preload/%.so,$(wildcard tests/preload/*.c))
SUITES      := $(filter-out cuda,$(patsubst tests/%/,%,$(sort $(dir $(wildcard tests/*/check_*.c)))))
EXAMPLES    := $(patsubst examples/%.c,$(B)/examples/%,$(wildcard examples/*.c))
PLUGINS     := $(B)/attune-cpu.so $(B)/attune-sampler-cpu.so
include plugin/cuda/rules.mk

.PHONY: all build demo check check-long check-san check-tsan check-clang check-train bench bench-engine lint format install clean deps help
.DELETE_ON_ERROR:
.SECONDARY:

all: build

build: deps ## build everything into build/
	@$(MAKE) -s --no-print-directory $(JOBS) $(B)/sample_host $(B)/libattune.so $(B)/libattune.a $(PLUGINS) $(B)/manifest.json $(EXAMPLES)

deps: ## install what the build needs (Debian; elsewhere say what is missing)
	@scripts/deps.sh $(PACKAGES)

demo: build ## draw a picture with the embedded model
	@scripts/demo.sh $(B)

check: build ## run the tests; SUITE="kernels host" picks rooms
	@$(MAKE) -s --no-print-directory $(JOBS) $(foreach s,$(filter $(SUITES),$(SUITE)),$(B)/tests/$(s)/check) $(FIXTURES) $(PRELOADS)
	@$(MAKE) -s --no-print-directory $(foreach s,$(SUITE),check-$(s))

check-san: ## the tests under ASan and UBSan, in build/san; the cross build is left out
	@$(MAKE) -s --no-print-directory check B=build/san SAN=1 OPT=-O1 SUITE="$(filter-out arm64,$(SUITE))"

check-tsan: ## the suite of swaps under TSan, in build/tsan
	@$(MAKE) -s --no-print-directory check B=build/tsan SAN=thread OPT=-O1 SUITE=swap

check-long: ## the kernels with 10 times the random problems, the embedded model on arm64, 100 swaps beneath real images (half an hour); ATTUNE_CHECK_FIRST=N repeats from problem N
	@ATTUNE_CHECK_TIMES=$${ATTUNE_CHECK_TIMES:-10} $(MAKE) -s --no-print-directory check SUITE="kernels arm64 swap"

check-clang: deps ## build everything and the tests with clang, in build/clang, and compare its latents and pictures with the pinned ones
	@scripts/deps.sh clang
	@$(MAKE) -s --no-print-directory $(JOBS) B=build/clang CC=clang build $(foreach s,$(SUITES) $(if $(NVCC),cuda),build/clang/tests/$(s)/check)
	@CK_RUN_CASE=portable $(MAKE) -s --no-print-directory B=build/clang CC=clang check SUITE="sampler sample_host"

check-train: build ## a short run of each stage of models/emoji/train (its environment takes 5 GB)
	@scripts/deps.sh fonts-noto-color-emoji fonts-dejavu-core unicode-cldr-core python3-venv
	@SAMPLE_HOST=$(abspath $(B))/sample_host python3 tests/train/smoke.py

bench: build ## time the attention backends on Stable Diffusion's shapes
	$(B)/sample_host bench attention

bench-engine: deps ## the ordered kernels beside oneDNN on Stable Diffusion's shapes
	@scripts/deps.sh libdnnl-dev
	@$(MAKE) -s --no-print-directory $(JOBS) $(B)/bench/engine
	OMP_PROC_BIND=true OMP_NUM_THREADS=2 $(B)/bench/engine 2

lint: deps ## clang-tidy and the format check
	@scripts/deps.sh clang clang-tidy clang-format git
	@scripts/lint.sh

format: ## clang-format every C file in place
	@git ls-files '*.c' '*.h' | xargs clang-format -i

install: build ## install below PREFIX (default /usr/local), DESTDIR respected
	@scripts/install.sh $(B) "$(DESTDIR)$(PREFIX)"

clean: ## remove build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(filter %Makefile %.mk,$(MAKEFILE_LIST)) | while IFS='|' read -r t h; do printf '  make %-12s %s\n' "$$t" "$$h"; done

# ---- objects ----
ifneq ($(filter x86_64-%,$(shell $(CC) -dumpmachine)),)
$(B)/obj/%_avx2.o: ALL_CFLAGS += -mavx2 -mfma -mf16c
$(B)/obj/%_avx512.o: ALL_CFLAGS += -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
endif
$(B)/obj/kernels/cpu/%.o $(B)/obj/plugin/cpu/ops/%.o: OPT = -O3
$(B)/obj/bench/peak.o: ALL_CFLAGS += -march=native -ffp-contract=fast
$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

# ---- libraries and programs ----
$(B)/libattune.a: $(HOST_OBJ)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)$(AR) rcs $@ $^
$(B)/libattune.so: $(HOST_OBJ) host_api/libattune.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libattune.so.0 $(LDFLAGS) -Wl,--version-script=host_api/libattune.map -o $@ $(HOST_OBJ) $(HOST_LIBS)
	@ln -sf libattune.so $(B)/libattune.so.0
$(B)/attune-cpu.so: $(CPU_OBJ) $(KERNEL_OBJ) plugin/plugin.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,--version-script=plugin/plugin.map -o $@ $(CPU_OBJ) $(KERNEL_OBJ) -lm
	@chmod go-w $@
$(B)/attune-sampler-cpu.so: $(SAMPLER_OBJ) $(KERNEL_OBJ) plugin/plugin.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,--version-script=plugin/plugin.map -o $@ $(SAMPLER_OBJ) $(KERNEL_OBJ) $(SAMPLER_LIBS)
	@chmod go-w $@
$(B)/sample_host: $(CLI_OBJ) $(B)/libattune.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(CLI_OBJ) $(B)/libattune.a $(CLI_LIBS) $(HOST_LIBS)
	@ln -sfn "$$(realpath --relative-to=$(B) models)" $(B)/models
$(B)/tools/%: $(B)/obj/tools/%.o
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(shell $(PKG_CONFIG) --libs jansson nettle) -lm
$(B)/tools/fill_manifest: $(patsubst %,$(B)/obj/host_api/%.o,elf_check json_fields structs)
# The self-test's known answers: libattune holds numbers, the tool holds the kernel that they come from.
$(B)/tools/make_self_test: $(REFERENCE_OBJ)
$(B)/gen/self_test_bits.c: $(B)/tools/make_self_test
	@mkdir -p $(@D)
	$(call say,FILL,$@)
	$(Q)$(RUN) $< $@
$(B)/obj/gen/%.o: $(B)/gen/%.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@
$(B)/bench/engine: $(B)/obj/bench/engine.o $(KERNEL_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -ldnnl -lm
$(B)/manifest.json: manifest.json $(PLUGINS) $(B)/tools/fill_manifest
	$(call say,FILL,$@)
	$(Q)$(RUN) $(B)/tools/fill_manifest manifest.json $(B) $@ $(WITHOUT)
	@chmod go-w $@ $(B)
$(B)/examples/%: $(B)/obj/examples/%.o $(B)/libattune.so
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -Wl,-rpath,'$$ORIGIN/..' -o $@ $< -L$(B) -lattune

# ---- what bench/attention_vs_peers.py calls ----
$(B)/bench/peak.so: $(B)/obj/bench/peak.o
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(LDFLAGS) -o $@ $<
$(B)/bench/call_cost: $(B)/obj/bench/call_cost.o $(KERNEL_OBJ) $(B)/libattune.so
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -Wl,-rpath,'$$ORIGIN/..' -o $@ $(filter %.o,$^) -L$(B) -lattune -lm

# It times leases, which are inside libattune.
$(B)/bench/swap_cost: $(B)/obj/bench/swap_cost.o $(B)/libattune.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(HOST_LIBS)

# ---- tests: tests/ROOM/check_*.c become build/tests/ROOM/check; fixture plugins are tests/fixtures/*.c, libraries for LD_PRELOAD tests/preload/*.c ----
$(B)/tests/fixtures/%.so: $(B)/obj/tests/fixtures/%.o plugin/plugin.map
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,--version-script=$(or $(FIXTURE_MAP),plugin/plugin.map) -o $@ $(filter %.o,$^) -lm
	@chmod go-w $@ $(@D)
$(B)/tests/fixtures/plain_unique.so: FIXTURE_MAP = tests/fixtures/unique.map
$(B)/tests/fixtures/racers.so: $(B)/obj/plugin/cpu/identify.o

# Plugins of the past and of the future (tests/abi/README.md).
$(B)/obj/tests/fixtures/frozen.o: ABI_HEADERS = tests/abi/1
$(B)/obj/tests/fixtures/longer.o: ABI_HEADERS = $(B)/tests/abi/longer
$(B)/obj/tests/fixtures/longer.o: ALL_CFLAGS += -Wno-missing-field-initializers
$(B)/obj/tests/fixtures/longer.o: $(B)/tests/abi/longer/made
$(B)/tests/abi/longer/made: tests/abi/lengthen.sh $(wildcard host_api/attune/*.h)
	@mkdir -p $(@D)
	$(call say,FILL,$(@D))
	$(Q)tests/abi/lengthen.sh host_api $(@D)
	@touch $@

$(B)/obj/tests/preload/%.o: ALL_CFLAGS += -fno-sanitize=all
$(B)/tests/preload/%.so: LDFLAGS += -fno-sanitize=all
$(B)/tests/preload/%.so: $(B)/obj/tests/preload/%.o
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(LDFLAGS) -o $@ $< $(shell $(PKG_CONFIG) --libs jansson)

define suite_rule
$(B)/tests/$(1)/check: $(call obj,tests/$(1)/*.c) $(TEST_OBJ) $(KERNEL_OBJ) $(if $(filter sampler,$(1)),$(SAMPLER_OBJ)) $(if $(filter sample_host,$(1)),$(filter-out %/main.o,$(CLI_OBJ)),$(B)/obj/sample_host/npy.o $(B)/obj/sample_host/output.o) $(B)/libattune.a
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(CHECK_LIBS) $$(CLI_LIBS) $$(HOST_LIBS) $(if $(filter sampler,$(1)),$$(SAMPLER_LIBS))
.PHONY: check-$(1)
check-$(1): $(B)/tests/$(1)/check $(FIXTURES) $(PRELOADS) $(B)/manifest.json $(B)/sample_host
	@echo "== $(1)"
	@CK_DEFAULT_TIMEOUT=0 ATTUNE_BUILD=$(B) ATTUNE_SOURCE=. $(B)/tests/$(1)/check
endef
$(foreach s,$(SUITES),$(eval $(call suite_rule,$(s))))

# Goldens come from their script only, and the embedded model is the one that it ran on.
.PHONY: check-goldens
check-sampler check-sample_host: check-goldens
check-goldens:
	@cd tests/golden && sha256sum -c --quiet data/SHA256SUMS || { \
	 echo "a golden, its script or models/emoji changed alone: see tests/golden/README.md" >&2; exit 1; }

-include tests/arm64/rules.mk
-include tests/fuzz/rules.mk
-include tests/cuda_emulator/rules.mk
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
