# The CUDA emulator: a stand-in libcudart.so.13 and libcublas.so.13 in $(B)/tests/cuda_emulator, for LD_LIBRARY_PATH, and the
# kernels of tests/cuda. It needs nvcc, and CUDA's headers beside it; without it the suite says so and is skipped.

ifneq ($(NVCC),)
EMULATOR     := $(B)/tests/cuda_emulator
EMULATOR_OBJ := $(call obj,tests/cuda_emulator/*.c)
CUBLAS_OBJ   := $(B)/obj/tests/cuda_emulator/cublas.o
CUDART_OBJ   := $(filter-out $(CUBLAS_OBJ),$(EMULATOR_OBJ))
CUDA_KERNELS := $(patsubst tests/cuda/kernels/%.cu,$(B)/tests/cuda/kernels/%.fatbin,$(wildcard tests/cuda/kernels/*.cu))
CUDA_ARCHS   ?= 75 80 90

$(B)/obj/tests/cuda_emulator/%.o $(B)/obj/tests/cuda/%.o: ALL_CFLAGS += -isystem $(CUDA_INCLUDE)
$(B)/obj/tests/cuda_emulator/exec_%.o: OPT = -O3
$(B)/obj/tests/cuda_emulator/config.o: ALL_CFLAGS += -I$(EMULATOR)
$(B)/obj/tests/cuda_emulator/config.o: $(EMULATOR)/cuda_error_names.h

# The error codes, from the header that declares them.
$(EMULATOR)/cuda_error_names.h: $(CUDA_INCLUDE)/driver_types.h
	@mkdir -p $(@D)
	$(Q)sed -n '/^enum __device_builtin__ cudaError$$/,/^};/s/^ *\(cuda[A-Za-z0-9]*\) *= *[0-9]*.*/X(\1)/p' $< > $@
$(EMULATOR)/libcudart.so.13: $(CUDART_OBJ) tests/cuda_emulator/libcudart.map
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libcudart.so.13 $(LDFLAGS) -Wl,--version-script=tests/cuda_emulator/libcudart.map -o $@ $(CUDART_OBJ) -lm
$(EMULATOR)/libcublas.so.13: $(CUBLAS_OBJ) $(EMULATOR)/libcudart.so.13 tests/cuda_emulator/libcublas.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libcublas.so.13 $(LDFLAGS) -Wl,--version-script=tests/cuda_emulator/libcublas.map -o $@ $(CUBLAS_OBJ) \
	 $(EMULATOR)/libcudart.so.13 -lm

# PTX of each target, uncompressed, with line numbers: what the emulator reads.
$(B)/tests/cuda/kernels/%.fatbin: tests/cuda/kernels/%.cu
	@mkdir -p $(@D)
	$(call say,NVCC,$@)
	$(Q)$(NVCC) -fatbin --compress-mode=none -lineinfo $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=compute_$(a)) -o $@ $<

# The shipped kernels with one bug each, of tests/cuda/mutations.txt: NAME-KERNEL.fatbin.
CUDA_MUTANTS := $(shell sed -n 's/^\([a-z_]*\) | \([a-z]*\) | .*/\1-\2/p' tests/cuda/mutations.txt)
$(B)/tests/cuda/mutants/%.fatbin: tests/cuda/mutations.txt tests/cuda/mutate.sh tests/cuda/mutant_kernels.cu $(wildcard kernels/*.h kernels/cuda/*.h kernels/cuda/*.cuh)
	$(call say,NVCC,$@)
	$(Q)NVCC="$(NVCC)" tests/cuda/mutate.sh $(subst -, ,$*) $(B)/tests/cuda/mutants/$*

# A library as nvcc builds it, host code and all, linked with the shared runtime: it finds the stand-in by LD_LIBRARY_PATH.
$(B)/tests/cuda/program.so: tests/cuda/program.cu
	@mkdir -p $(@D)
	$(call say,NVCC,$@)
	$(Q)$(NVCC) -shared -cudart shared -Xcompiler -fPIC --compress-mode=none -lineinfo \
	 $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=compute_$(a)) -o $@ $<

# The plugin's tests share the kernels' random problems and the plugin's host.
CUDA_SHARED_OBJ := $(TEST_OBJ) $(KERNEL_OBJ) $(patsubst %,$(B)/obj/tests/kernels/%.o,cases oracle plugin_host) $(B)/obj/sample_host/npy.o $(B)/obj/sample_host/output.o $(call obj,kernels/cuda/*.c)
$(B)/tests/cuda/check: $(call obj,tests/cuda/*.c) $(CUDA_SHARED_OBJ) $(B)/libattune.a $(EMULATOR)/libcudart.so.13 $(EMULATOR)/libcublas.so.13
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(CHECK_LIBS) $(CLI_LIBS) $(HOST_LIBS)
# Another build of the plugin, to be swapped in: the same code in a file with other bytes.
$(B)/tests/cuda/attune-cuda-b.so: $(B)/attune-cuda.so
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,--build-id=0x62 -Wl,--version-script=plugin/plugin.map -o $@ $(CUDA_LINK)
	@chmod go-w $@
# One test expects SIGSEGV, and tests end without unloading what they loaded.
.PHONY: check-cuda
check-cuda:
	@$(MAKE) -s --no-print-directory $(JOBS) $(B)/tests/cuda/check $(B)/tests/cuda/program.so $(B)/tests/cuda/attune-cuda-b.so $(CUDA_KERNELS) $(B)/kernels/cuda/flash.fatbin $(B)/kernels/cuda/efficient.fatbin \
	 $(CUDA_MUTANTS:%=$(B)/tests/cuda/mutants/%.fatbin) $(B)/manifest.json $(B)/sample_host
	@echo "== cuda"
	@export $(if $(SAN),ASAN_OPTIONS=handle_segv=0:detect_leaks=0) CK_DEFAULT_TIMEOUT=0 ATTUNE_BUILD=$(B) ATTUNE_SOURCE=. ATTUNE_EMULATOR_QUIET=1 LD_LIBRARY_PATH=$(abspath $(EMULATOR)):$$LD_LIBRARY_PATH; \
	 CK_INCLUDE_TAGS=tensor-cores $(B)/tests/cuda/check & half=$$!; \
	 CK_EXCLUDE_TAGS=tensor-cores $(B)/tests/cuda/check; other=$$?; wait $$half && exit $$other
	@scripts/cuda_budget.py check $(B) || [ $$? = 77 ]

# The same tests with NVIDIA's runtime.
$(B)/tests/cuda/check_gpu: $(call obj,tests/cuda/hardware/*.c) $(patsubst %,$(B)/obj/tests/cuda/%.o,check_portable check_backends check_commands device_call) $(CUDA_SHARED_OBJ) $(B)/libattune.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(CUDART) $(CHECK_LIBS) $(CLI_LIBS) $(HOST_LIBS)
.PHONY: check-gpu
check-gpu: build ## the CUDA plugin's tests on this machine's GPU (not yet run on hardware; docs/cuda.md)
	@$(MAKE) -s --no-print-directory $(JOBS) $(B)/tests/cuda/check_gpu
	@CK_DEFAULT_TIMEOUT=0 ATTUNE_BUILD=$(B) ATTUNE_SOURCE=. LD_LIBRARY_PATH=$(dir $(CUDART)):$$LD_LIBRARY_PATH $(B)/tests/cuda/check_gpu
else
.PHONY: check-cuda check-gpu
check-gpu: ## the CUDA plugin's tests on this machine's GPU (not yet run on hardware; docs/cuda.md)
	@echo "check-gpu needs nvcc on PATH (set NVCC=)" >&2; exit 1
check-cuda:
	@echo "== cuda: skipped, nvcc is not on PATH (set NVCC=)"
endif
