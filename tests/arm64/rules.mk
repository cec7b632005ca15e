# The product for AArch64, built by a cross compiler and run under an emulator: scripts/arm64.sh makes it, with B=build/arm64.

$(B)/tests/arm64/check: ALL_CFLAGS += -Itests/arm64
$(B)/tests/arm64/check: $(patsubst %,$(B)/obj/tests/%.o,arm64/main kernels/cases kernels/norm_cases kernels/products sampler/rig \
 sampler/trajectory support/run) $(SAMPLER_OBJ) $(KERNEL_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(SAMPLER_LIBS) $(HOST_LIBS)

.PHONY: check-arm64
check-arm64: $(B)/sample_host $(B)/manifest.json
	@echo "== arm64"
	@tests/arm64/check.sh $(B)
