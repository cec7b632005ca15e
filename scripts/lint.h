/* lint.h: clang's analyzer does not look into variadic functions; it must know that attune_fail returns its
 * code. */
#include "attune/abi.h"
void attune_lint_use(attune_error *error, const char *domain, ...);
#define attune_fail(error, code, ...) (attune_lint_use(error, __VA_ARGS__), (attune_code)(code))
