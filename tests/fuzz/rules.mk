# Fuzzing: `make fuzz` runs libFuzzer over each parser of untrusted bytes, `make check-fuzz` the kept inputs with $(CC).

FUZZ_CC ?= clang
TIME    ?= 60
FUZZ_TARGETS := checkpoint config elf manifest model_config npy prompt safetensors tokens vocabulary
TARGET  ?= $(FUZZ_TARGETS)

# What each target is built from, besides its own file.
FUZZ_checkpoint  := plugin/sampler/checkpoint.c plugin/sampler/checkpoint_config.c plugin/sampler/config.c \
                    plugin/sampler/files.c plugin/sampler/safetensors.c plugin/sampler/sigma.c plugin/sampler/names.c kernels/reference/math_f64.c
FUZZ_config      := plugin/sampler/config.c plugin/sampler/files.c
FUZZ_elf         := host_api/elf_check.c host_api/structs.c
FUZZ_manifest    := host_api/manifest.c host_api/json_fields.c host_api/structs.c
FUZZ_model_config := $(FUZZ_checkpoint)
FUZZ_npy         := sample_host/npy.c sample_host/output.c
FUZZ_safetensors := plugin/sampler/safetensors.c plugin/sampler/files.c
FUZZ_tokens      := plugin/sampler/tokens.c plugin/sampler/tokens_open.c plugin/sampler/files.c
FUZZ_prompt      := plugin/sampler/prompt.c plugin/sampler/prompt_parse.c $(FUZZ_tokens)
FUZZ_vocabulary  := $(FUZZ_tokens)
FUZZ_HEADERS     := $(wildcard tests/fuzz/*.h host_api/*.h host_api/attune/*.h plugin/sampler/*.h sample_host/*.h)
FUZZ_LIBS  = $(shell $(PKG_CONFIG) --libs jansson libutf8proc) -lm
FUZZ_FLAGS = -std=c11 $(WARN) -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=undefined -ffp-contract=off -pthread \
             $(CPPFLAGS) -fsanitize=fuzzer,address,undefined

.PHONY: fuzz check-fuzz
fuzz: $(addprefix $(B)/fuzz/fuzz_,$(TARGET)) ## run every fuzz target for TIME seconds each (default 60); TARGET=npy picks one
	@tests/fuzz/run.sh $(B)/fuzz $(TIME) $(TARGET)

$(B)/fuzz/.clang:
	@mkdir -p $(@D)
	@echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n); int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return !d && n; }' | \
	 $(FUZZ_CC) -fsanitize=fuzzer,address,undefined -x c -o $@ - 2>$(@D)/clang.log || { cat $(@D)/clang.log >&2; \
	 echo "make fuzz needs clang with libFuzzer (FUZZ_CC=$(FUZZ_CC) has none); on Debian: apt-get install clang libclang-rt-14-dev" >&2; exit 1; }

define fuzz_rule
$(B)/fuzz/fuzz_$(1): tests/fuzz/fuzz_$(1).c $(FUZZ_$(1)) $(FUZZ_HEADERS) tests/fuzz/rules.mk | $(B)/fuzz/.clang
	$$(call say,FUZZ,$$@)
	$$(Q)$$(FUZZ_CC) $$(FUZZ_FLAGS) -o $$@ tests/fuzz/fuzz_$(1).c $(FUZZ_$(1)) $$(FUZZ_LIBS)
$(B)/tests/fuzz/$(1): $(patsubst %.c,$(B)/obj/%.o,tests/fuzz/fuzz_$(1).c tests/fuzz/replay.c $(FUZZ_$(1)))
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(FUZZ_LIBS)
endef
$(foreach t,$(FUZZ_TARGETS),$(eval $(call fuzz_rule,$(t))))

check-fuzz: $(addprefix $(B)/tests/fuzz/,$(FUZZ_TARGETS))
	@echo "== fuzz"
	@tests/fuzz/replay.sh $(B)/tests/fuzz $(FUZZ_TARGETS)
