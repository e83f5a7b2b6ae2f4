/* Reductions that give the same bits for any number of ranks, any order and any grouping.
 *
 * Scalars: an exact accumulator, a wide fixed-point number in int64 limbs that holds any sum of f64
 * without error; limbs are added by MPI_Allreduce(SUM) of integers and rounded once, to nearest
 * even. Vectors: leaves summed on a fixed binary tree over their index; ranks exchange maximal
 * complete subtrees only. Float reductions by MPI_Allreduce(SUM) are banned elsewhere. Source:
 * Kulisch accumulator; Demmel & Nguyen, Parallel reproducible summation (2015), for the aim.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_REDUCE_H
#define AM_MPI_REDUCE_H

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

/* Radix 2^32: bits 2^-1074 .. 2^1024 and headroom. */
enum { AM_EXACT_LIMBS = 68 };

typedef struct am_exact {
    int64_t limb[AM_EXACT_LIMBS]; /* signed digits; limb i weighs 2^(32 i - 1088) */
    int64_t adds;                 /* since the digits were last normalised */
    int64_t special[3];           /* counts of NaN, +Inf, -Inf added */
} am_exact;

void am_exact_zero(am_exact *a);
void am_exact_add(am_exact *a, double x);            /* exact for every finite x */
void am_exact_merge(am_exact *a, const am_exact *b); /* a += b, exact */
/** One form for each value: equal sums have equal bytes after it. */
void am_exact_normalise(am_exact *a);
double am_exact_round(const am_exact *a); /* nearest even; NaN, Inf as IEEE addition would give */

/** a[n] := sum over ranks. Collective [comm]; n [same]. Exact; any n (split into bounded windows).
 * Errors: AM_E_NOMEM, agreed. */
int am_exact_sum_all(MPI_Comm comm, am_exact *a, int64_t n);

/** value[n] := sum / max over ranks of integers or doubles (data movement only). A NaN wins the
 * maximum. Collective [comm]; n [same]. */
int am_sum_i64_all(MPI_Comm comm, int64_t *value, int64_t n);
int am_max_i64_all(MPI_Comm comm, int64_t *value, int64_t n);
int am_max_f64_all(MPI_Comm comm, double *value, int64_t n);
/** value[n] := sum over the ranks before this one, 0 on the first. Collective [comm]; n [same]. */
int am_prefix_i64_all(MPI_Comm comm, int64_t *value, int64_t n);

/* ---- dot products of a chunk ----
 * Sum of x[i]*y[i], i < n, added to `out` without depending on how a tensor was cut: the caller
 * passes whole chunks (AM_CHUNK elements of one tensor from a multiple of AM_CHUNK, or the tensor's
 * tail). Inside: tiles of 4,096 elements, 32 f64 lanes (i mod 32), lanes combined pairwise, each
 * tile's sum added exactly. */
void am_dot_chunk(const double *x, const double *y, int64_t n, am_exact *out);

/* ---- vectors on a tree ----
 * M leaves (fixed by the recipe), each a vector of n reals, f32 or f64. Level 0 are the leaves;
 * node i of level l+1 is node 2i + node 2i+1 of level l, or node 2i alone if 2i+1 does not exist.
 * The root is the sum. Rank r of comm owns the leaves am_part_range(M, size, r). */
typedef struct am_tree am_tree;

/* Parts of a vector that ranks finish: whole units of this many reals. */
enum { AM_TREE_UNIT = 4096 };
/** Part [*lo, *hi) of a vector of n reals that rank `rank` of `size` finishes: a share of its
 * units. Pure. */
void am_tree_part(int64_t n, int size, int rank, int64_t *lo, int64_t *hi);

/** Plan a sum of M leaves of n reals of `bytes_per_real` (4 or 8) over comm. Collective [comm];
 * all arguments [same]. Owned by the caller, freed by am_tree_free. Memory: a vector for each
 * maximal complete subtree of the own leaves (1 for a power of two at its own multiple, at most
 * 2 log2(own leaves)) and one for each level below it, and an inbox of at most 64 MiB; where all
 * ranks share a node the vectors and one more for the root lie in shared memory, without an inbox.
 * Errors: AM_E_NOMEM, agreed. */
int am_tree_create_all(MPI_Comm comm, int64_t leaves, int64_t n, int bytes_per_real, am_tree **out);
/* How a sum on a tree ends: am_tree_root_all, am_tree_sum_all everywhere, or in parts. */
typedef enum am_tree_end { AM_TREE_ROOT, AM_TREE_EVERYWHERE, AM_TREE_PARTS } am_tree_end;
/** Bytes that rank `rank` of `size` touches in a sum, for plans: vectors, inbox or shared memory,
 * and the caller's buffer. is_shared: all ranks are on one node. Pure but for memory. Errors:
 * AM_E_NOMEM. */
int am_tree_bytes(int64_t leaves, int64_t n, int bytes_per_real, int size, int rank, bool is_shared,
                  am_tree_end end, int64_t *out);
void am_tree_free(am_tree **tree);
/** This rank's leaves [*lo, *hi). */
void am_tree_leaves(const am_tree *tree, int64_t *lo, int64_t *hi);
/** Buffer in which to make the next leaf (leaves lo..hi-1 in order), [n] reals, contents undefined.
 */
void *am_tree_next(am_tree *tree);
/** The buffer from am_tree_next is filled: add it to the tree. Local. */
void am_tree_push(am_tree *tree);
/** Exchange subtrees and finish the sum.
 *
 * Collective [comm], after all own leaves are pushed. sum [n] receives the root: on every rank if
 * `everywhere`, else only elements am_tree_part(n, size, rank) (reduce-scatter). With one rank no
 * copy is made of a single leaf beyond the one into `sum`. The tree is ready for the next round. */
int am_tree_sum_all(am_tree *tree, void *sum, bool everywhere);
/** The same sum on every rank without a copy where that is possible: *root [n] is `buffer` [n], or
 * a vector of the tree, read only, that stays until this rank makes its next leaf. Collective
 * [comm]. */
int am_tree_root_all(am_tree *tree, void *buffer, const void **root);

#endif
