/* Task vectors (model - base) as checkpoints: how they lie in a file, and back to f64. A tensor
 * NAME of n elements is stored in one of five ways; elements count from 0 over the whole tensor, in
 * row order:
 *
 *   dense   float  NAME         [shape of the base] f64, f32, f16 or bf16: the differences
 *           int8   NAME         [shape of the base] I8
 *                  NAME::scale  [ceil(n / 128)] F32    difference i = scale[i / 128] * NAME[i]
 *   sparse         NAME::shape  [dimensions] I64
 *                  NAME::start  [ceil(n / 65536) + 1] I64  entries of chunk c: start[c]..start[c+1]
 *                  NAME::index  [k] U16    element = 65536 * chunk + index, rising in a chunk
 *                  NAME::value  [k] float: the differences; or I8, and then
 *                  NAME::scale  [ceil(n / 2048)] F32   difference = scale[element / 2048] * value
 *   factors        NAME::u      [rows, r] float        a matrix [first dimension, the others]:
 *                  NAME::s      [r] F64                differences = u diag(s) vt
 *                  NAME::vt     [r, columns] float     r 0: all are 0
 *
 * Metadata: allmerge.task_vector "1", .dtype, .density, .base (a fingerprint of the base). Tensors
 * that are not floats are not stored. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_CHECKPOINT_TASKVEC_H
#define AM_IO_CHECKPOINT_TASKVEC_H

#include "io/checkpoint/checkpoint.h"

#define AM_TV_META         "allmerge.task_vector"
#define AM_TV_META_DTYPE   AM_TV_META ".dtype"
#define AM_TV_META_DENSITY AM_TV_META ".density"
#define AM_TV_META_BASE    AM_TV_META ".base"

enum { AM_TV_DENSE_BLOCK = 128, AM_TV_SPARSE_BLOCK = 2048 }; /* elements with one int8 scale */

/* How one tensor of the base is stored; indices in the task vector's table, -1: not there. */
typedef struct am_tv_tensor {
    bool is_stored, is_sparse;
    am_dtype dtype; /* of the numbers: a float type or AM_DTYPE_I8 */
    int64_t kept;   /* elements that are not cut off: numel, or k */
    int64_t block;  /* elements with one scale */
    int64_t rank;   /* of its factors, -1: not stored as factors */
    int64_t value, scale, start, index, shape, u, s, vt;
} am_tv_tensor;

/** Elements of `numel` that a density keeps: the whole part of density * numel, at least one. */
int64_t am_tv_kept(int64_t numel, double density);
/** Whether a float tensor of two dimensions or more takes fewer bytes as factors of this rank than
 * otherwise. Pure. */
bool am_tv_factors_pay(const am_tensor *tensor, am_dtype dtype, double density, int64_t rank);
/** The table of a task vector of a base, and how each of the base's tensors (form [base->n], owned
 * by the caller) is stored: as factors where their rank [base->n] is known (not -1) and they pay,
 * else sparse where that is smaller. rank NULL: no factors. Local, pure; from headers alone.
 * Errors: AM_E_DATA two tensors would have one name; AM_E_NOMEM. */
int am_tv_plan(const am_tensor_table *base, am_dtype dtype, double density, const int64_t *rank,
               am_tensor_table *table, am_tv_tensor *form);

/** Bytes that a tensor of this form takes in a task vector with this table. Pure. */
int64_t am_tv_tensor_bytes(const am_tensor_table *table, const am_tv_tensor *form);

/** The smallest f32 s with 127 s >= largest: |x - s rint(x / s)| <= s / 2 for |x| <= largest. */
float am_tv_scale(double largest);

/** Fingerprint of a checkpoint's values: XXH3-64 of names, types, shapes and the bytes of the
 * first, middle and last 1,024 elements of every tensor, as 16 hexadecimal digits. Collective
 * [comm]; rank 0 reads. Errors: the source's, agreed; AM_E_NOMEM. */
int am_tv_fingerprint_all(MPI_Comm comm, const am_source *source, char out[17]);

/* ---- reading ---- */
typedef struct am_taskvec am_taskvec;

bool am_tv_is(const am_ckpt *ckpt);
/** Match a task vector with its base.
 *
 * Collective [comm]; base [same] is read for the fingerprint; both are borrowed for the life of
 * out. Errors, agreed: AM_E_DATA made from another base (says so), tensors that are missing, extra
 * or do not fit. out: freed by am_tv_close. */
int am_tv_open_all(MPI_Comm comm, am_ckpt *ckpt, const am_source *base, int64_t buffer_bytes,
                   am_taskvec **out);
void am_tv_close(am_taskvec **tv); /* accepts a pointer to NULL */
/** Bytes that reading it by `load` elements at most takes, what is held aside; and those of n
 * elements of a tensor of the base: as stored, and held: none of sparse ones. Pure. */
int64_t am_tv_bytes(const am_taskvec *tv, int64_t load);
void am_tv_weigh(const am_taskvec *tv, int64_t tensor, int64_t n, int64_t *stored, int64_t *staged);
/** Announce loads, and keep what is loaded more than once, in the numbering of the base; as
 * am_source.stage and am_source.hold. */
int am_tv_stage(am_taskvec *tv, const am_span *spans, int64_t n);
int am_tv_hold(am_taskvec *tv, const am_span *spans, int64_t n);
/** Rank of the factors of a tensor, -1: it has none (pure); and both, left [rows, rank] and right
 * [rank, columns] with singular values. Local. Errors: the source's. */
int64_t am_tv_rank(const am_taskvec *tv, int64_t tensor);
int am_tv_factors(am_taskvec *tv, int64_t tensor, double *left, double *right);
/** dst[n] += differences [lo, lo+n) of a float tensor of the base. Local.
 * Errors: the source's; AM_E_DATA a damaged index, naming file and tensor. */
int am_tv_add(am_taskvec *tv, int64_t tensor, int64_t lo, int64_t n, double *dst);

#endif
