/*
 * math_f64.c: exp, log, log1p, sin, cos and pow in double, the same bits on every IEEE-754 machine.
 *
 * Each function reduces its argument, sums a series whose first terms are carried as double-double (an
 * unevaluated sum of two doubles, about 106 bits) and whose tail is a plain double, and rounds once. The tail
 * starts where its terms are below 2^-8 of the result, so its own rounding stays below 2^-60 of it: less than
 * a hundredth of an ulp.
 *
 * Sources: error-free sum and product, Knuth, The Art of Computer Programming vol. 2, 4.2.2, and Dekker, "A
 * floating-point technique for extending the available precision", 1971 (the product by fma); argument
 * reduction with a constant of several words, Cody & Waite, Software Manual for the Elementary Functions,
 * 1980; the series are those of NIST DLMF 4.2.19 (exp), 4.6.4 (log through atanh), 4.19.1 and 4.19.2 (sin,
 * cos).
 */
#include "kernels/reference/math_f64.h"

#include <float.h>
#include <math.h>

_Static_assert(FLT_EVAL_METHOD == 0, "double arithmetic must round to double at every step");

/* hi + lo, |lo| <= ulp(hi) / 2. */
typedef struct pair {
    double hi;
    double lo;
} pair;

static const pair ln2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
static const double ln2_third = 0x1.7b57a079a1934p-111;
static const double one_over_ln2 = 0x1.71547652b82fep+0;
static const pair half_pi = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54};
static const double half_pi_third = -0x1.f1976b7ed8fbcp-110;
static const double two_over_pi = 0x1.45f306dc9c883p-1;

static pair sum_ordered(double a, double b) { /* |a| >= |b| or a = 0 */
    double s = a + b;
    return (pair){s, b - (s - a)};
}

static pair sum(double a, double b) {
    double s = a + b, bb = s - a;
    return (pair){s, (a - (s - bb)) + (b - bb)};
}

static pair product(double a, double b) {
    double p = a * b;
    return (pair){p, fma(a, b, -p)};
}

static pair pair_add(pair a, pair b) {
    pair s = sum(a.hi, b.hi), t = sum(a.lo, b.lo);
    s = sum_ordered(s.hi, s.lo + t.hi);
    return sum_ordered(s.hi, s.lo + t.lo);
}

static pair pair_add_double(pair a, double b) {
    pair s = sum(a.hi, b);
    return sum_ordered(s.hi, s.lo + a.lo);
}

static pair pair_multiply(pair a, pair b) {
    pair p = product(a.hi, b.hi);
    return sum_ordered(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

static pair pair_multiply_double(pair a, double b) {
    pair p = product(a.hi, b);
    return sum_ordered(p.hi, p.lo + a.lo * b);
}

static pair pair_divide(pair a, pair b) {
    double q = a.hi / b.hi;
    pair p = pair_multiply_double(b, q);
    double rest = ((a.hi - p.hi) - p.lo) + a.lo;
    return sum_ordered(q, rest / b.hi);
}

/* x - n * (hi + lo + third), the products exact, each sum with its error. */
static pair reduce(double x, double n, pair constant, double third) {
    pair p = product(n, constant.hi), q = product(n, constant.lo);
    pair s = sum(x, -p.hi);
    pair r = pair_add(s, (pair){-p.lo, 0});
    r = pair_add(r, (pair){-q.hi, -q.lo});
    return pair_add_double(r, -(n * third));
}

/* e^x for |x.hi| < 800: 2^n * (1 + r + r²/2 + r³/6 + …), |r| <= ln 2 / 2. */
static double exp_of_pair(pair x) {
    static const pair sixth = {0x1.5555555555555p-3, 0x1.5555555555555p-57};
    static const pair twentyfourth = {0x1.5555555555555p-5, 0x1.5555555555555p-59};
    double n = rint(x.hi * one_over_ln2);
    pair r = pair_add_double(reduce(x.hi, n, ln2, ln2_third), x.lo);
    double tail = 0; /* r/5! + r²/6! + …; 0.35^18/18! < 2^-79 */
    for (int k = 18; k >= 5; k--) {
        static const double inverse_factorial[] = {1.0 / 120,
                                                   1.0 / 720,
                                                   1.0 / 5040,
                                                   1.0 / 40320,
                                                   1.0 / 362880,
                                                   1.0 / 3628800,
                                                   1.0 / 39916800,
                                                   1.0 / 479001600,
                                                   1.0 / 6227020800,
                                                   1.0 / 87178291200,
                                                   1.0 / 1307674368000,
                                                   1.0 / 20922789888000,
                                                   1.0 / 355687428096000,
                                                   1.0 / 6402373705728000};
        tail = (tail + inverse_factorial[k - 5]) * r.hi;
    }
    pair p = pair_add_double(twentyfourth, tail);
    p = pair_add(pair_multiply(p, r), sixth);
    p = pair_add_double(pair_multiply(p, r), 0.5);
    p = pair_add_double(pair_multiply(p, r), 1);
    p = pair_add_double(pair_multiply(p, r), 1);
    return ldexp(p.hi, (int)n); /* p is normalised: p.hi is the rounded sum */
}

/* log(x.hi + x.lo) for a finite, normal x.hi > 0: e·ln 2 + 2·atanh((m − 1)/(m + 1)), m in [sqrt ½, sqrt 2).
 */
static pair log_of_pair(pair x) {
    static const pair third = {0x1.5555555555555p-2, 0x1.5555555555555p-56};
    static const pair fifth = {0x1.999999999999ap-3, -0x1.999999999999ap-57};
    static const pair seventh = {0x1.2492492492492p-3, 0x1.2492492492492p-57};
    int e;
    double m = frexp(x.hi, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double lo = ldexp(x.lo, -e);
    pair top = pair_add_double(sum(m, -1), lo), bottom = pair_add_double(sum(m, 1), lo);
    pair s = pair_divide(top, bottom);
    pair z = pair_multiply(s, s);
    double tail = 0; /* z/9 + z²/11 + …, z <= 0.0295; z^16/35 < 2^-86 */
    for (int k = 35; k >= 9; k -= 2)
        tail = (tail + 1.0 / k) * z.hi;
    pair p = pair_add_double(seventh, tail);
    p = pair_add(pair_multiply(p, z), fifth);
    p = pair_add(pair_multiply(p, z), third);
    p = pair_multiply(pair_multiply(p, z), s);
    p = pair_add(p, s);
    pair scaled = {2 * p.hi, 2 * p.lo};
    if (e == 0)
        return scaled;
    pair whole = pair_add_double(pair_multiply_double(ln2, e), e * ln2_third);
    return pair_add(whole, scaled);
}

double attune_exp_f64(double x) {
    if (!(x < 800)) /* NaN and overflow; the sum is +inf or NaN */
        return x + INFINITY;
    if (x < -800)
        return 0;
    return exp_of_pair((pair){x, 0});
}

/* log of 0, negatives, infinity and NaN. */
static double log_outside(double x) {
    if (x == 0)
        return -INFINITY;
    return x > 0 ? x : NAN;
}

double attune_log_f64(double x) {
    if (!(x > 0 && x <= DBL_MAX))
        return log_outside(x);
    if (x < DBL_MIN) { /* subnormal: log(x·2^54) − 54·ln 2 */
        pair shifted = log_of_pair((pair){x * 0x1p54, 0});
        return pair_add(shifted, pair_multiply_double(ln2, -54)).hi;
    }
    return log_of_pair((pair){x, 0}).hi;
}

double attune_log1p_f64(double x) {
    if (!(x > -1 && x <= DBL_MAX))
        return log_outside(x == -1 ? 0 : x);
    if (fabs(x) < 0x1p-60) /* x − x²/2 rounds to x */
        return x;
    return log_of_pair(sum(1, x)).hi;
}

/* sin r = r·(1 − z/6 + z²/120 − …), z = r², |r| <= pi/4. */
static double sin_of_pair(pair r) {
    static const pair sixth = {0x1.5555555555555p-3, 0x1.5555555555555p-57};
    static const pair hundredtwentieth = {0x1.1111111111111p-7, 0x1.1111111111111p-63};
    static const double tail_terms[] = {
        /* −1/7! + z/9! − …; z^11/23! < 2^-81 */
        -1.0 / 5040,          1.0 / 362880,          -1.0 / 39916800,           1.0 / 6227020800,
        -1.0 / 1307674368000, 1.0 / 355687428096000, -1.0 / 121645100408832000, 1.0 / 51090942171709440000.0};
    pair z = pair_multiply(r, r);
    double tail = 0;
    for (int k = 7; k >= 0; k--)
        tail = tail_terms[k] + tail * z.hi;
    pair p = pair_add_double(hundredtwentieth, tail * z.hi);
    p = pair_add(pair_multiply(p, z), (pair){-sixth.hi, -sixth.lo});
    p = pair_multiply(pair_multiply(p, z), r);
    return pair_add(r, p).hi;
}

/* cos r = 1 − z/2 + z²/24 − …, z = r², |r| <= pi/4. */
static double cos_of_pair(pair r) {
    static const pair twentyfourth = {0x1.5555555555555p-5, 0x1.5555555555555p-59};
    static const double tail_terms[] = {
        /* −1/6! + z/8! − …; z^11/22! < 2^-77 */
        -1.0 / 720,         1.0 / 40320,          -1.0 / 3628800,          1.0 / 479001600,
        -1.0 / 87178291200, 1.0 / 20922789888000, -1.0 / 6402373705728000, 1.0 / 2432902008176640000};
    pair z = pair_multiply(r, r);
    double tail = 0;
    for (int k = 7; k >= 0; k--)
        tail = tail_terms[k] + tail * z.hi;
    pair p = pair_add_double(twentyfourth, tail * z.hi);
    p = pair_add_double(pair_multiply(p, z), -0.5);
    return pair_add_double(pair_multiply(p, z), 1).hi;
}

/* sin(x + quarter·pi/2). */
static double sin_from_quarter(double x, int quarter) {
    if (!(fabs(x) <= 0x1p20))
        return NAN;
    double n = rint(x * two_over_pi);
    pair r = reduce(x, n, half_pi, half_pi_third);
    switch (((int)n + quarter) & 3) {
    case 0:
        return sin_of_pair(r);
    case 1:
        return cos_of_pair(r);
    case 2:
        return -sin_of_pair(r);
    default:
        return -cos_of_pair(r);
    }
}

double attune_sin_f64(double x) {
    if (fabs(x) < 0x1p-27) /* x − x³/6 rounds to x; keeps −0 and the subnormals */
        return x;
    return sin_from_quarter(x, 0);
}

double attune_cos_f64(double x) {
    return sin_from_quarter(x, 1);
}

double attune_pow_f64(double x, double y) {
    if (y == 0)
        return 1;
    if (x == 0)
        return y > 0 ? 0 : y < 0 ? INFINITY : NAN;
    if (!(x > 0 && x <= DBL_MAX && fabs(y) <= DBL_MAX)) /* infinities: by the logarithm's sign */
        return x > 0 ? attune_exp_f64(y * attune_log_f64(x)) : NAN;
    pair l = x < DBL_MIN ? pair_add(log_of_pair((pair){x * 0x1p54, 0}), pair_multiply_double(ln2, -54))
                         : log_of_pair((pair){x, 0});
    double rough = l.hi * y;
    if (!(fabs(rough) < 800)) /* far out of range: only the sign matters */
        return attune_exp_f64(rough);
    return exp_of_pair(pair_multiply_double(l, y));
}
