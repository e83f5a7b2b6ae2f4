/* Reading the inputs of a merge or an analysis. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "mpi/clones.h"
#include "mpi/error.h"
#include "solver/merge/input.h"
#include "solver/merge/narrow.h"

/* Pieces that the input has, in its numbering. Returns how many. */
static int64_t map_pieces(const am_merge_input *input, const am_span *pieces, int64_t n,
                          am_span *mapped)
{
    int64_t n_mapped = 0;
    for (int64_t i = 0; i < n; i++) {
        if (input->tensor[pieces[i].tensor] >= 0) {
            mapped[n_mapped] = pieces[i];
            mapped[n_mapped++].tensor = input->tensor[pieces[i].tensor];
        }
    }
    return n_mapped;
}

int am_input_stage(const am_merge_input *input, const am_span *pieces, int64_t n, am_span *mapped)
{
    if (input == NULL || input->source->stage == NULL) {
        return 0;
    }
    return input->source->stage(input->source->self, mapped, map_pieces(input, pieces, n, mapped));
}

int am_input_hold(const am_merge_input *input, const am_span *pieces, int64_t n, am_span *mapped)
{
    if (input->source->hold == NULL) {
        return 0;
    }
    return input->source->hold(input->source->self, mapped, map_pieces(input, pieces, n, mapped));
}

/* The exponent of NaN and infinity is all ones. Integers, so that the loop vectorises. */
AM_CLONES static bool is_all_finite(const double *x, int64_t n)
{
    const uint64_t special = UINT64_C(0x7ff) << 52;
    uint64_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        found |= (bits & special) == special;
    }
    return found == 0;
}

AM_CLONES static bool is_all_finite_bf16(const uint16_t *raw, int64_t n)
{
    const uint16_t special = 0x7F80;
    uint16_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        found |= (raw[i] & special) == special;
    }
    return found == 0;
}

/* The bits of an input in bf16, or NULL. */
static int find_bf16(const am_merge_input *input, int64_t tensor, int64_t lo, int64_t n,
                     const uint16_t **raw)
{
    const am_source *source = input->source;
    const int64_t at = input->tensor[tensor];
    const bool is_stored =
        source->borrow != NULL && source->tensors->t[at].dtype == AM_DTYPE_BF16 && n <= AM_BORROW;
    const void *bits = NULL;
    int rc = is_stored ? source->borrow(source->self, at, lo, n, &bits) : 0;
    *raw = bits;
    return rc;
}

int am_input_load(const am_merge_input *input, int64_t tensor, int64_t lo, int64_t n,
                  bool allow_nonfinite, double *dst)
{
    const am_source *source = input->source;
    const int64_t at = input->tensor[tensor];
    const uint16_t *raw = NULL;
    int rc = source->load(source->self, at, lo, n, dst);
    if (rc == 0 && !allow_nonfinite) {
        rc = find_bf16(input, tensor, lo, n, &raw);
    }
    if (rc != 0 || allow_nonfinite || (raw != NULL && is_all_finite_bf16(raw, n)) ||
        is_all_finite(dst, n)) {
        return rc;
    }
    int64_t bad = 0;
    while (isfinite(dst[bad])) {
        bad++;
    }
    return am_fail(AM_E_DATA,
                   "%s: tensor '%s': element %lld is %s; mend the input, or allow values "
                   "that are not finite",
                   source->label, source->tensors->t[at].name, (long long)(lo + bad),
                   isnan(dst[bad]) ? "NaN" : "infinite");
}

/* ---- rounded to bf16 or f16 ---- */

AM_CLONES static void f32_from_f64(const double *restrict x, int64_t n, float *restrict dst)
{
    for (int64_t i = 0; i < n; i++) {
        dst[i] = (float)x[i];
    }
}

int am_input_load_narrow(const am_merge_input *input, int64_t tensor, int64_t lo, int64_t n,
                         bool allow_nonfinite, am_dtype dtype, const float *base, double *work,
                         float *dst)
{
    const uint16_t *raw = NULL;
    int rc = dtype == AM_DTYPE_BF16 ? find_bf16(input, tensor, lo, n, &raw) : 0;
    if (rc == 0 && raw != NULL && (am_narrow_from_bf16(raw, base, n, dst) || allow_nonfinite)) {
        return 0;
    }
    AM_KEEP(am_input_load(input, tensor, lo, n, allow_nonfinite, work));
    if (rc == 0) {
        f32_from_f64(work, n, dst);
        am_narrow(dtype, dst, n);
        if (base != NULL) {
            am_narrow_subtract(dtype, dst, base, n);
        }
    }
    return rc;
}
