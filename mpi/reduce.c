/* The exact accumulator, integer reductions and the dot product of a chunk. Vectors: mpi/tree.c.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/reduce.h"

#include <math.h>
#include <string.h>
#include "mpi/bigcount.h"
#include "mpi/clones.h"
#include "mpi/error.h"

/* Bit b of limb i weighs 2^(32 i + b - BIAS); the least f64 is bit LEAST_BIT. */
enum { BIAS = 1088, LEAST_BIT = BIAS - 1074, TOP = AM_EXACT_LIMBS - 1 };
/* |limb| <= adds * 2^32, so 2^30 adds leave a factor two below the int64 range. */
static const int64_t most_adds = INT64_C(1) << 30;

_Static_assert(sizeof(am_exact) == (AM_EXACT_LIMBS + 4) * sizeof(int64_t),
               "an accumulator is summed as an array of int64");

void am_exact_zero(am_exact *a)
{
    *a = (am_exact){.adds = 0};
}

/* Carry upwards: digits become 0 .. 2^32 - 1 but for the top one, which keeps the sign. */
void am_exact_normalise(am_exact *a)
{
    for (int i = 0; i < TOP; i++) {
        int64_t digit = a->limb[i] & INT64_C(0xffffffff);
        a->limb[i + 1] += (a->limb[i] - digit) / (INT64_C(1) << 32);
        a->limb[i] = digit;
    }
    a->adds = 1;
}

static void add_special(am_exact *a, double x)
{
    a->special[isnan(x) ? 0 : x > 0 ? 1 : 2]++;
}

void am_exact_add(am_exact *a, double x)
{
    uint64_t bits = 0;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52 & 0x7ff);
    uint64_t mantissa = bits & ((UINT64_C(1) << 52) - 1);
    if (exponent == 0x7ff) {
        add_special(a, x);
        return;
    }
    if (exponent > 0) {
        mantissa |= UINT64_C(1) << 52;
    } else {
        exponent = 1; /* subnormal */
    }
    if (a->adds >= most_adds) {
        am_exact_normalise(a);
    }
    int bit = exponent - 1 + LEAST_BIT, shift = bit % 32;
    int64_t *limb = &a->limb[bit / 32];
    int64_t sign = bits >> 63 ? -1 : 1;
    uint64_t low = (mantissa & 0xffffffffu) << shift, high = (mantissa >> 32) << shift;
    uint64_t middle = (low >> 32) + (high & 0xffffffffu); /* < 2^33: carried into the next digit */
    limb[0] += sign * (int64_t)(low & 0xffffffffu);
    limb[1] += sign * (int64_t)(middle & 0xffffffffu);
    limb[2] += sign * (int64_t)((high >> 32) + (middle >> 32));
    a->adds++;
}

void am_exact_merge(am_exact *a, const am_exact *b)
{
    am_exact other = *b;
    if (a->adds + other.adds > most_adds) {
        am_exact_normalise(a);
        am_exact_normalise(&other);
    }
    for (int i = 0; i < AM_EXACT_LIMBS; i++) {
        a->limb[i] += other.limb[i];
    }
    a->adds += other.adds;
    for (int i = 0; i < 3; i++) {
        a->special[i] += other.special[i];
    }
}

/* The bits [from, from + count) of normalised non-negative digits, count <= 53. */
static uint64_t take_bits(const am_exact *a, int from, int count)
{
    uint64_t taken = 0;
    for (int got = 0; got < count;) {
        int limb = (from + got) / 32, bit = (from + got) % 32;
        int width = limb == TOP ? count - got : 32 - bit; /* the top limb is not cut at 32 */
        taken |= ((uint64_t)a->limb[limb] >> bit) << got;
        got += width;
    }
    return taken & ((UINT64_C(1) << count) - 1);
}

static bool has_bits_below(const am_exact *a, int bit)
{
    for (int i = 0; i < bit / 32; i++) {
        if (a->limb[i] != 0) {
            return true;
        }
    }
    return ((uint64_t)a->limb[bit / 32] & ((UINT64_C(1) << bit % 32) - 1)) != 0;
}

/* Round a normalised positive number. Every summand is a multiple of bit LEAST_BIT, so a subnormal
 * result is exact. */
static double round_positive(const am_exact *a, int top)
{
    int high_bit = 32 * top + 63 - __builtin_clzll((uint64_t)a->limb[top]);
    int low_bit = high_bit - 52 > LEAST_BIT ? high_bit - 52 : LEAST_BIT;
    uint64_t mantissa = take_bits(a, low_bit, high_bit - low_bit + 1);
    if (take_bits(a, low_bit - 1, 1) != 0 &&
        ((mantissa & 1) != 0 || has_bits_below(a, low_bit - 1))) {
        mantissa++;
    }
    return ldexp((double)mantissa, low_bit - BIAS);
}

double am_exact_round(const am_exact *a)
{
    if (a->special[0] > 0 || (a->special[1] > 0 && a->special[2] > 0)) {
        return NAN;
    }
    if (a->special[1] > 0 || a->special[2] > 0) {
        return a->special[1] > 0 ? INFINITY : -INFINITY;
    }
    am_exact copy = *a;
    am_exact_normalise(&copy);
    bool is_negative = copy.limb[TOP] < 0;
    if (is_negative) {
        for (int i = 0; i < AM_EXACT_LIMBS; i++) {
            copy.limb[i] = -copy.limb[i];
        }
        am_exact_normalise(&copy);
    }
    int top = TOP;
    while (top >= 0 && copy.limb[top] == 0) {
        top--;
    }
    if (top < 0) {
        return 0;
    }
    double magnitude = round_positive(&copy, top);
    return is_negative ? -magnitude : magnitude;
}

/* ---- over ranks ---- */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Integer allreduce in place, in windows: MPI makes a copy of what it reduces. */
static int reduce_i64_all(MPI_Comm comm, int64_t *value, int64_t n, MPI_Op op)
{
    enum { WINDOW = 1 << 18 };
    int rc = 0, size = 1;
    AM_TRY(am_mpi_code(MPI_Comm_size(comm, &size), "MPI_Comm_size"));
    for (int64_t at = 0; at < n && size > 1; at += WINDOW) {
        AM_TRY(am_mpi_code(MPI_Allreduce(MPI_IN_PLACE, value + at, am_int(least(WINDOW, n - at)),
                                         MPI_INT64_T, op, comm),
                           "MPI_Allreduce"));
    }
cleanup:
    return rc;
}

/* Normalised digits are below 2^32, so the sum over any number of ranks fits an int64. */
int am_exact_sum_all(MPI_Comm comm, am_exact *a, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        am_exact_normalise(&a[i]);
    }
    return reduce_i64_all(comm, (int64_t *)a, n * (int64_t)(sizeof *a / sizeof(int64_t)), MPI_SUM);
}

int am_sum_i64_all(MPI_Comm comm, int64_t *value, int64_t n)
{
    return reduce_i64_all(comm, value, n, MPI_SUM);
}

int am_max_i64_all(MPI_Comm comm, int64_t *value, int64_t n)
{
    return reduce_i64_all(comm, value, n, MPI_MAX);
}

int am_prefix_i64_all(MPI_Comm comm, int64_t *value, int64_t n)
{
    enum { WINDOW = 1 << 10 };
    int64_t before[WINDOW];
    int rc = 0;
    for (int64_t at = 0; at < n; at += WINDOW) {
        const int64_t count = least(WINDOW, n - at);
        memset(before, 0, sizeof before); /* the first rank's is left alone */
        AM_TRY(
            am_mpi_code(MPI_Exscan(value + at, before, am_int(count), MPI_INT64_T, MPI_SUM, comm),
                        "MPI_Exscan"));
        memcpy(value + at, before, (size_t)count * sizeof *value);
    }
cleanup:
    return rc;
}

/* Integers in the order of the doubles; NaN above all, so that it wins on every rank. */
static int64_t order_key(double x)
{
    int64_t bits = 0;
    memcpy(&bits, &x, sizeof bits);
    return isnan(x) ? INT64_MAX : bits < 0 ? bits ^ INT64_MAX : bits;
}

static double from_order_key(int64_t key)
{
    double x = 0;
    int64_t bits = key < 0 ? key ^ INT64_MAX : key;
    memcpy(&x, &bits, sizeof x);
    return key == INT64_MAX ? NAN : x;
}

int am_max_f64_all(MPI_Comm comm, double *value, int64_t n)
{
    enum { WINDOW = 1024 };
    int rc = 0;
    int64_t key[WINDOW];
    for (int64_t at = 0; at < n; at += WINDOW) {
        int64_t count = least(WINDOW, n - at);
        for (int64_t i = 0; i < count; i++) {
            key[i] = order_key(value[at + i]);
        }
        AM_TRY(reduce_i64_all(comm, key, count, MPI_MAX));
        for (int64_t i = 0; i < count; i++) {
            value[at + i] = from_order_key(key[i]);
        }
    }
cleanup:
    return rc;
}

/* ---- dot products ---- */

enum { LANES = 32, TILE = 4096 };
typedef double eight __attribute__((vector_size(64)));
typedef double eight_unaligned __attribute__((vector_size(64), aligned(8), may_alias));

/* Element i goes to lane i mod 32; the lanes are added in halves. */
AM_CLONES static double tile_dot(const double *x, const double *y, int64_t n)
{
    eight sum[4] = {{0}};
    int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        for (int64_t k = 0; k < 4; k++) {
            sum[k] += *(const eight_unaligned *)(x + i + 8 * k) *
                      *(const eight_unaligned *)(y + i + 8 * k);
        }
    }
    double lane[LANES];
    memcpy(lane, sum, sizeof lane);
    for (int64_t i = whole; i < n; i++) {
        lane[i - whole] += x[i] * y[i];
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lane[i] += lane[i + half];
        }
    }
    return lane[0];
}

void am_dot_chunk(const double *x, const double *y, int64_t n, am_exact *out)
{
    for (int64_t at = 0; at < n; at += TILE) {
        am_exact_add(out, tile_dot(x + at, y + at, least(TILE, n - at)));
    }
}
