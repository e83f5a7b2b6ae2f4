/* Shares, slices and balance. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/partition.h"

#include <stdlib.h>
#include "mpi/arena.h"
#include "mpi/error.h"

void am_part_range(int64_t n, int64_t parts, int64_t part, int64_t *lo, int64_t *hi)
{
    AM_ASSERT(n >= 0 && parts > 0 && part >= 0 && part < parts);
    int64_t share = n / parts, more = n % parts; /* the first `more` parts have one item more */
    *lo = part * share + (part < more ? part : more);
    *hi = *lo + share + (part < more ? 1 : 0);
}

int64_t am_part_owner(int64_t n, int64_t parts, int64_t i)
{
    AM_ASSERT(parts > 0 && i >= 0 && i < n);
    int64_t share = n / parts, more = n % parts;
    return i < more * (share + 1) ? i / (share + 1) : more + (i - more * (share + 1)) / share;
}

int64_t am_part_units(int64_t numel, int64_t unit)
{
    AM_ASSERT(numel >= 0 && unit > 0);
    return numel / unit + (numel % unit != 0);
}

/* One tensor in the byte order of the whole table. */
typedef struct extent {
    int64_t numel, element_bytes, before; /* before: bytes of all tensors ahead of it */
    int64_t unit, total;
    int parts;
} extent;

/* Part in whose share the midpoint of unit u lies: floor(P (b0+b1)/2 / B), exactly. */
static int64_t unit_owner(const extent *e, int64_t u)
{
    int64_t lo = u * e->unit, hi = e->numel - lo < e->unit ? e->numel : lo + e->unit;
    __int128 twice_middle = 2 * (__int128)e->before + (__int128)(lo + hi) * e->element_bytes;
    return (int64_t)(twice_middle * e->parts / (2 * (__int128)e->total));
}

/* First of the tensor's units whose owner is >= part; owners never fall along the units. */
static int64_t first_unit_of(const extent *e, int64_t part)
{
    int64_t lo = 0, hi = am_part_units(e->numel, e->unit);
    while (lo < hi) {
        int64_t middle = lo + (hi - lo) / 2;
        if (unit_owner(e, middle) >= part) {
            hi = middle;
        } else {
            lo = middle + 1;
        }
    }
    return lo;
}

int am_slice_make(const am_tensor_table *tensors, int64_t unit, int parts, int part, am_slice *out)
{
    AM_ASSERT(unit > 0 && parts > 0 && part >= 0 && part < parts);
    *out = (am_slice){.spans = am_new(tensors->n, sizeof *out->spans, "a slice")};
    if (out->spans == NULL) {
        return AM_E_NOMEM;
    }
    extent e = {.unit = unit, .total = am_tensor_table_bytes(tensors), .parts = parts};
    for (int64_t i = 0; i < tensors->n; i++) {
        e.numel = tensors->t[i].numel;
        e.element_bytes = am_dtype_bytes(tensors->t[i].dtype);
        int64_t first = first_unit_of(&e, part), end = first_unit_of(&e, (int64_t)part + 1);
        if (first < end) {
            int64_t lo = first * unit;
            int64_t hi = end == am_part_units(e.numel, unit) ? e.numel : end * unit;
            out->spans[out->n++] = (am_span){.tensor = i, .lo = lo, .hi = hi};
            out->elements += hi - lo;
            out->bytes += (hi - lo) * e.element_bytes;
        }
        e.before += e.numel * e.element_bytes;
    }
    return 0;
}

/* Bytes of unit u of a tensor, and its end in elements. */
static int64_t unit_bytes(const am_tensor *t, int64_t unit, int64_t u, int64_t *end)
{
    const int64_t left = t->numel - u * unit, n = left < unit ? left : unit;
    *end = u * unit + n;
    return n * am_dtype_bytes(t->dtype);
}

/* Bytes of all units that are left; *n: how many. */
static int64_t left_bytes(const am_tensor_table *tensors, int64_t unit, const bool *is_left,
                          int64_t *n)
{
    int64_t total = 0, at = 0, end = 0;
    *n = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        for (int64_t u = 0; u < am_part_units(tensors->t[i].numel, unit); u++, at++) {
            total += is_left[at] ? unit_bytes(&tensors->t[i], unit, u, &end) : 0;
            *n += is_left[at];
        }
    }
    return total;
}

int am_slice_make_left(const am_tensor_table *tensors, int64_t unit, const bool *is_left, int parts,
                       int part, am_slice *out)
{
    AM_ASSERT(unit > 0 && parts > 0 && part >= 0 && part < parts);
    int64_t n = 0, before = 0, at = 0, hi = 0;
    const int64_t total = left_bytes(tensors, unit, is_left, &n);
    *out = (am_slice){.spans = am_new(n + 1, sizeof *out->spans, "a slice")};
    if (out->spans == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < tensors->n; i++) {
        for (int64_t u = 0; u < am_part_units(tensors->t[i].numel, unit); u++, at++) {
            if (!is_left[at]) {
                continue;
            }
            const int64_t bytes = unit_bytes(&tensors->t[i], unit, u, &hi), lo = u * unit;
            const __int128 twice_middle = 2 * (__int128)before + bytes;
            before += bytes;
            if ((int64_t)(twice_middle * parts / (2 * (__int128)total)) != part) {
                continue;
            }
            am_span *last = out->n > 0 ? &out->spans[out->n - 1] : NULL;
            if (last != NULL && last->tensor == i && last->hi == lo) {
                last->hi = hi;
            } else {
                out->spans[out->n++] = (am_span){.tensor = i, .lo = lo, .hi = hi};
            }
            out->elements += hi - lo;
            out->bytes += bytes;
        }
    }
    return 0;
}

void am_slice_free(am_slice *slice)
{
    free(slice->spans);
    *slice = (am_slice){0};
}

/* Spans of a tensor, one for each part that owns some of its units; spans [parts], NULL: count. */
static int64_t split_tensor(const extent *e, int64_t tensor, int64_t *part, am_span *spans)
{
    const int64_t units = am_part_units(e->numel, e->unit);
    int64_t n = 0;
    for (int64_t first = 0, end; first < units; first = end) {
        const int64_t owner = unit_owner(e, first);
        end = first_unit_of(e, owner + 1);
        if (spans != NULL) {
            part[n] = owner;
            spans[n] = (am_span){.tensor = tensor,
                                 .lo = first * e->unit,
                                 .hi = end == units ? e->numel : end * e->unit};
        }
        n++;
    }
    return n;
}

/* Parts come in order, because owners never fall from tensor to tensor. part: NULL to count. */
static int64_t split_each(const am_tensor_table *tensors, extent e, int64_t *part, am_span *spans)
{
    int64_t n = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        e.numel = tensors->t[i].numel;
        e.element_bytes = am_dtype_bytes(tensors->t[i].dtype);
        n += spans != NULL ? split_tensor(&e, i, part + n, spans + n)
                           : split_tensor(&e, i, NULL, NULL);
        e.before += e.numel * e.element_bytes;
    }
    return n;
}

int am_slices_make(const am_tensor_table *tensors, int64_t unit, int parts, am_slices *out)
{
    AM_ASSERT(unit > 0 && parts > 0);
    const extent e = {.unit = unit, .total = am_tensor_table_bytes(tensors), .parts = parts};
    const int64_t n = split_each(tensors, e, NULL, NULL);
    int64_t *part = am_new(n + 1, sizeof *part, "slices");
    *out = (am_slices){.parts = parts,
                       .first = am_new((int64_t)parts + 1, sizeof *out->first, "slices"),
                       .spans = am_new(n + 1, sizeof *out->spans, "slices")};
    int rc = part != NULL && out->first != NULL && out->spans != NULL ? 0 : AM_E_NOMEM;
    if (rc == 0) {
        (void)split_each(tensors, e, part, out->spans);
        for (int64_t i = 0; i < n; i++) {
            out->first[part[i] + 1] = i + 1;
        }
        for (int p = 0; p < parts; p++) { /* parts without spans */
            out->first[p + 1] =
                out->first[p + 1] > out->first[p] ? out->first[p + 1] : out->first[p];
        }
    }
    free(part);
    return rc;
}

void am_slices_free(am_slices *slices)
{
    free(slices->first);
    free(slices->spans);
    *slices = (am_slices){0};
}

static int64_t group_load(const int64_t *cost, int64_t n, const int *owner, int group)
{
    int64_t load = 0;
    for (int64_t i = 0; i < n; i++) {
        load += owner[i] == group ? cost[i] : 0;
    }
    return load;
}

/* Quadratic on purpose: jobs are tasks, a few hundred at most, and without memory it cannot fail.
 */
void am_part_balance(const int64_t *cost, int64_t n, int groups, int *owner)
{
    AM_ASSERT(n >= 0 && groups > 0);
    for (int64_t i = 0; i < n; i++) {
        owner[i] = -1;
    }
    for (int64_t round = 0; round < n; round++) {
        int64_t heaviest = -1;
        for (int64_t i = 0; i < n; i++) {
            if (owner[i] < 0 && (heaviest < 0 || cost[i] > cost[heaviest])) {
                heaviest = i;
            }
        }
        int best = 0;
        int64_t best_load = group_load(cost, n, owner, 0);
        for (int g = 1; g < groups && best_load > 0; g++) {
            int64_t load = group_load(cost, n, owner, g);
            if (load < best_load) {
                best = g;
                best_load = load;
            }
        }
        owner[heaviest] = best;
    }
}
