/*
 * math_f64.h: our own double functions, for what is computed beside the tensors: sigmas, Box-Muller noise,
 * timestep embeddings.
 *
 * The C library's exp, log, pow give other bits on machines with and without FMA. These use + - * / sqrt fma
 * and integer operations only, all of them exact by IEEE-754, so that their bits are the same on every
 * machine. What comes before the last rounding carries 60 bits and more, so that the error is below 0.51
 * ulp (the test measures it against long double).
 *
 * [any] No state, no errno, no floating-point environment is read or written; they expect round to nearest.
 */
#ifndef ATTUNE_KERNELS_REFERENCE_MATH_F64_H
#define ATTUNE_KERNELS_REFERENCE_MATH_F64_H

/* e^x. Overflow gives +inf, x < -745.14 gives +0, subnormal results are rounded twice. NaN
 * stays NaN. */
double attune_exp_f64(double x);

/* Natural logarithm. 0 gives -inf, x < 0 gives NaN. */
double attune_log_f64(double x);

/* log(1 + x), without cancellation near 0. -1 gives -inf, x < -1 gives NaN. */
double attune_log1p_f64(double x);

/* Sine and cosine of x in radians. Defined for |x| <= 2^20 (noise needs 2 pi, time embeddings the number of
 * train timesteps); beyond, and for inf and NaN, they give NaN rather than a wrong digit. */
double attune_sin_f64(double x);
double attune_cos_f64(double x);

/* x^y for x >= 0, as e^(y log x) in double-double. pow(x, 0) = 1, pow(0, y > 0) = 0, pow(0, y < 0) = +inf; x
 * < 0 gives NaN. */
double attune_pow_f64(double x, double y);

#endif
