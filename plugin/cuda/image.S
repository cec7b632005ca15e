/* plugin/cuda/image.S: the fat binary of kernels/cuda/NAME.cu as data. The build gives NAME and FILE. */
#define JOIN(a, b)   a##b
#define SYMBOL(name) JOIN(attune_cuda_image_, name)

    .section .rodata
    .balign 64
    .globl SYMBOL(NAME)
    .hidden SYMBOL(NAME)
    .type SYMBOL(NAME), %object
SYMBOL(NAME):
    .incbin FILE
    .size SYMBOL(NAME), . - SYMBOL(NAME)
    .section .note.GNU-stack, "", %progbits
