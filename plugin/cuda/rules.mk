# attune-cuda: kernels/cuda/NAME.cu become fat binaries, which lie in the library as data (image.S). It needs nvcc with CUDA's
# headers beside it, and links the shared runtime, so that a missing one is known before any code of the plugin runs.
# CUDA_SM picks the GPUs, as in `make CUDA_SM="86 90"`: machine code of each, made from the newest PTX of CUDA_PTX that is not
# above it. That PTX ships too, for GPUs that come later.

NVCC ?= $(shell command -v nvcc 2>/dev/null)
CUDA_SM ?= 75 80 86 89 90 120
CUDA_PTX ?= 75 80 90

ifneq ($(NVCC),)
CUDA_HOME    := $(abspath $(dir $(NVCC))..)
CUDA_INCLUDE := $(CUDA_HOME)/include
CUDA_NAMES   := $(patsubst kernels/cuda/%.cu,%,$(wildcard kernels/cuda/*.cu))
CUDA_IMAGES  := $(CUDA_NAMES:%=$(B)/obj/kernels/cuda/%.image.o)
CUDA_OBJ     := $(call obj,plugin/cuda/*.c kernels/cuda/*.c) $(B)/obj/plugin/layout.o
CUDART       := $(firstword $(wildcard $(CUDA_HOME)/lib64/libcudart.so.13 $(CUDA_HOME)/lib/libcudart.so.13 $(CUDA_HOME)/targets/*/lib/libcudart.so.13))
CUDA_LINK     = $(CUDA_OBJ) $(CUDA_IMAGES) $(B)/obj/kernels/reference/attention.o $(B)/obj/kernels/reference/attention_rows.o $(CUDART) -ldl -lm
PLUGINS      += $(B)/attune-cuda.so

# Not compressed: what ships is what the emulator reads. The portable kernels contract nothing (docs/arithmetic.md, rule 5).
cuda_ptx_of = $(shell for p in $(CUDA_PTX); do [ $$p -le $(1) ] && r=$$p; done; echo $$r)
CUDA_CODE := $(foreach s,$(CUDA_SM),$(s)=$(call cuda_ptx_of,$(s)))
comma := ,
empty :=
CUDA_GENCODE := $(foreach p,$(CUDA_PTX),$(if $(filter %=$(p),$(CUDA_CODE)),-gencode arch=compute_$(p)$(comma)code=[compute_$(p)$(subst $(empty) $(empty),,$(patsubst %=$(p),$(comma)sm_%,$(filter %=$(p),$(CUDA_CODE))))]))
# What ptxas says of each kernel stays in NAME.fatbin.ptxas, for scripts/cuda_budget.py.
# CUDA_LINES=-lineinfo adds the .cu lines, for the emulator's reports and for profilers, and makes the library three times as large.
CUDA_LINES ?=
NVCC_FLAGS = -std=c++17 -I. --compress-mode=none $(CUDA_LINES) -ftz=false -prec-div=true -prec-sqrt=true
$(B)/kernels/cuda/portable.fatbin: NVCC_FLAGS += -fmad=false

$(B)/obj/plugin/cuda/%.o: ALL_CFLAGS += -isystem $(CUDA_INCLUDE)
$(B)/kernels/cuda/%.fatbin: kernels/cuda/%.cu $(wildcard kernels/*.h kernels/cuda/*.h kernels/cuda/*.cuh) plugin/cuda/rules.mk
	@mkdir -p $(@D)
	$(call say,NVCC,$@)
	$(Q)$(NVCC) -fatbin $(NVCC_FLAGS) -Xptxas -v $(CUDA_GENCODE) -o $@ $< > $@.ptxas 2>&1 || { cat $@.ptxas >&2; exit 1; }
$(B)/obj/kernels/cuda/%.image.o: $(B)/kernels/cuda/%.fatbin plugin/cuda/image.S
	@mkdir -p $(@D)
	$(call say,AS,$@)
	$(Q)$(CC) -c -DNAME=$* -DFILE='"$<"' -o $@ plugin/cuda/image.S
$(B)/attune-cuda.so: $(filter %.o,$(CUDA_LINK)) plugin/plugin.map
	$(call say,LD,$@)
	$(if $(CUDART),,$(error libcudart.so.13 is not beside nvcc ($(CUDA_HOME)): install CUDA 13's runtime, or build without nvcc: make NVCC=))
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,--version-script=plugin/plugin.map -o $@ $(CUDA_LINK)
	@chmod go-w $@
else
WITHOUT += attune-cuda
build: no-cuda
.PHONY: no-cuda
no-cuda:
	@echo "attune-cuda is left out: nvcc is not on PATH (set NVCC=)"
endif
