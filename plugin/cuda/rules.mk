# attune-cuda: kernels/cuda/NAME.cu become fat binaries, which lie in the library as data (image.S). It needs nvcc with CUDA's
# headers beside it, and links the shared runtime, so that a missing one is known before any code of the plugin runs.
# CUDA_SM picks the GPUs, as in `make CUDA_SM="86 90"`: machine code and PTX of each.

NVCC ?= $(shell command -v nvcc 2>/dev/null)
CUDA_SM ?= 75 80 86 89 90 120

ifneq ($(NVCC),)
CUDA_HOME    := $(abspath $(dir $(NVCC))..)
CUDA_INCLUDE := $(CUDA_HOME)/include
CUDA_NAMES   := $(patsubst kernels/cuda/%.cu,%,$(wildcard kernels/cuda/*.cu))
CUDA_IMAGES  := $(CUDA_NAMES:%=$(B)/obj/kernels/cuda/%.image.o)
CUDA_OBJ     := $(call obj,plugin/cuda/*.c kernels/cuda/*.c)
CUDART       := $(firstword $(wildcard $(CUDA_HOME)/lib64/libcudart.so.13 $(CUDA_HOME)/lib/libcudart.so.13 $(CUDA_HOME)/targets/*/lib/libcudart.so.13))
PLUGINS      += $(B)/attune-cuda.so

# Not compressed: what ships is what the emulator reads. The portable kernels contract nothing (docs/arithmetic.md, rule 5).
NVCC_FLAGS = -std=c++17 -I. --compress-mode=none -lineinfo -ftz=false -prec-div=true -prec-sqrt=true
$(B)/kernels/cuda/portable.fatbin: NVCC_FLAGS += -fmad=false

$(B)/obj/plugin/cuda/%.o: ALL_CFLAGS += -isystem $(CUDA_INCLUDE)
$(B)/kernels/cuda/%.fatbin: kernels/cuda/%.cu $(wildcard kernels/*.h kernels/cuda/*.h) plugin/cuda/rules.mk
	@mkdir -p $(@D)
	$(call say,NVCC,$@)
	$(Q)$(NVCC) -fatbin $(NVCC_FLAGS) $(foreach a,$(CUDA_SM),-gencode arch=compute_$(a),code=[sm_$(a),compute_$(a)]) -o $@ $<
$(B)/obj/kernels/cuda/%.image.o: $(B)/kernels/cuda/%.fatbin plugin/cuda/image.S
	@mkdir -p $(@D)
	$(call say,AS,$@)
	$(Q)$(CC) -c -DNAME=$* -DFILE='"$<"' -o $@ plugin/cuda/image.S
$(B)/attune-cuda.so: $(CUDA_OBJ) $(CUDA_IMAGES) $(B)/obj/kernels/reference/attention.o $(B)/obj/kernels/reference/attention_rows.o plugin/plugin.map
	$(call say,LD,$@)
	$(if $(CUDART),,$(error libcudart.so.13 is not beside nvcc ($(CUDA_HOME)): install CUDA 13's runtime, or build without nvcc: make NVCC=))
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,--version-script=plugin/plugin.map -o $@ $(filter %.o,$^) $(CUDART) -ldl -lm
	@chmod go-w $@
else
WITHOUT += attune-cuda
build: no-cuda
.PHONY: no-cuda
no-cuda:
	@echo "attune-cuda is left out: nvcc is not on PATH (set NVCC=)"
endif
