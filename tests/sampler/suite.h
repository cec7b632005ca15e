/* suite.h: the families of this room. tests/sampler/check_FAMILY.c defines FAMILY_cases(); add its line here.
 */
#ifndef ATTUNE_TESTS_SAMPLER_SUITE_H
#define ATTUNE_TESTS_SAMPLER_SUITE_H

#include <check.h>

#define SAMPLER_FAMILIES(X)                                                                                  \
    X(tokens)                                                                                                \
    X(prompt)                                                                                                \
    X(noise)                                                                                                 \
    X(sigma)                                                                                                 \
    X(latent)                                                                                                \
    X(config)                                                                                                \
    X(safetensors)                                                                                           \
    X(files)                                                                                                 \
    X(ops)                                                                                                   \
    X(checkpoint)                                                                                            \
    X(models)                                                                                                \
    X(session)                                                                                               \
    X(finite)                                                                                                \
    X(portable)

#define SAMPLER_DECLARE(family) TCase *family##_cases(void);
SAMPLER_FAMILIES(SAMPLER_DECLARE)
#undef SAMPLER_DECLARE

#endif
