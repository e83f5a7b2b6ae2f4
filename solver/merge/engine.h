/* What the files of the merge engine share; for nobody else.
 *
 *   merge.c     the job: groups of pieces, batches, agreements
 *
 *   units.c     which units there are, whole in one rank's slice or shared; where they are cut
 *
 *   sets.c      shared units that are reduced together, as many as memory allows
 *
 *   window.c    tiles: their inputs in f64 or rounded, and what becomes of them
 *
 *   pass.c      passes of units: sums, orders, solve
 *
 *   order.c     the take-th largest key
 *
 *   dense.c     whole matrices, and who does them
 *
 *   spread.c    matrices on a process grid
 *
 *   forecast.c  what all of this takes, from shapes alone
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_ENGINE_H
#define AM_SOLVER_MERGE_ENGINE_H

#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/progress.h"
#include "mpi/reduce.h"
#include "solver/merge/merge.h"
#include "solver/merge/order.h"

/* Elements of a tile that may be cut anywhere: the f64 of some inputs and of the output stay in the
 * first-level cache. Arrays that are worked on together do not begin at equal places of a page,
 * where a load waits for stores to the other one: a tile is no whole number of pages, and the
 * inputs lie AM_STAGGER elements further apart than their length. */
enum { AM_PART = 960, AM_STAGGER = 72 };

/* Memory that only grows, and is kept from unit to unit. */
typedef struct am_room {
    void *at;
    int64_t bytes;
} am_room;

/* A unit while it is worked on. `unit` is what methods see. */
typedef struct am_unit_run {
    am_unit unit;
    int64_t tensor; /* its first */
    const double *model_param[AM_MAX_MODELS];
    am_rng rng[AM_MAX_MODELS];
    int64_t factor_rank[AM_MAX_MODELS];
    am_room sum, cut, state, before, seen;
    int n_sums, n_cuts; /* of the passes that are done */
    int count, cuts;    /* of the pass under way */
    int64_t first;      /* its first accumulator or pick */
    bool is_checked;    /* an earlier visit saw that all of its inputs are finite */
} am_unit_run;

/* What a tile must know of its tensor. */
typedef struct am_binding {
    int64_t tensor;             /* -1: none */
    int models;                 /* T */
    int index[AM_MAX_MODELS];   /* [T] of the job's models */
    bool absent[AM_MAX_MODELS]; /* [T] stands in by the base (scope global; a product) */
    const double *model_param[AM_MAX_MODELS];
    am_rng rng[AM_MAX_MODELS];
    int64_t tile, cols, layer; /* tile: elements */
    bool by_rows;
} am_binding;

typedef struct am_batch {
    am_span *pieces; /* [n] in the output's numbering; capacity max_pieces */
    am_span *mapped; /* [inputs * max_pieces] for staging */
    am_span *raw;    /* [max_pieces] what one input is asked for */
    int64_t n;
} am_batch;

/* The inputs of a tile in f64, and the task vectors that decide. */
typedef struct am_window {
    int64_t room;               /* elements */
    double *base, *model, *aux; /* [room], [n_models, room], [n_models, room] */
    am_span span;               /* what is there; tensor -1: nothing */
    const double **x, **a;      /* [n_models] of a tile */
    float *low_base, *low;      /* [room], [n_models, room] rounded, of methods that want it */
    am_span low_span;
    const float **rounded; /* [n_models] of a tile */
} am_window;

/* Consecutive spans of e->order that are visited together. */
typedef struct am_group {
    int64_t first, end;
    int64_t batches;
    bool is_shared;
    bool is_dense; /* one tensor, a matrix */
    bool is_whole; /* whole tensors in one batch: each goes through its passes in turn */
} am_group;

typedef enum am_visit {
    AM_VISIT_SUMS,
    AM_VISIT_ORDER,
    AM_VISIT_COMBINE,
    AM_VISIT_GATHER /* of a matrix, in place of COMBINE */
} am_visit;

/* The matrix that is worked on. */
typedef struct am_dense_run {
    am_arena arena;
    am_matrix base, out, delta[AM_MAX_MODELS], gram[AM_MAX_MODELS];
    am_matrix left[AM_MAX_MODELS], right[AM_MAX_MODELS];
} am_dense_run;

typedef struct am_engine {
    const am_merge_job *job;
    const am_method *method;
    am_scope scope;
    am_semantics semantics;
    bool has_base; /* the method sees the base */
    int n_params;

    am_span *order; /* [n_order] this rank's spans: first those of shared units, then the others */
    int64_t n_order, n_order_shared;
    int64_t
        *parts; /* [n_parts, same] first tensors of the units on several ranks, in their order */
    int64_t n_parts;
    int64_t *set; /* [n_sets + 1, same] parts[set[s]..set[s + 1]) are reduced together */
    int64_t n_sets;
    am_unit_run *shared; /* [n_shared] units of the set under way; [shared_room], the largest set */
    int64_t n_shared, shared_room;
    am_unit_run local; /* the unit worked on, if it is whole on this rank */

    int64_t block;    /* elements of a batch */
    int64_t max_tile; /* elements */
    int64_t max_pieces;
    am_batch batch[2];              /* being computed, and the next one, staged */
    int now;                        /* index of the former */
    int64_t next_span, next_offset; /* where the next batch starts in `order` */
    am_agree_queue agreed;          /* of local batches */
    int64_t ticks, rounds;          /* local batches done, and their largest number on any rank */

    am_arena arena;
    am_window window;
    am_binding bound;
    double *out;     /* [max_tile] */
    bool is_held;    /* inputs keep the batch under way */
    double *scratch; /* [method->scratch, max_tile] */

    const am_pass *pass; /* under way */
    bool is_open;        /* it needs another visit */
    am_order picks;
    am_room exact, tile_sum, key, keys;
    int64_t n_exact;

    bool *is_dense;  /* [tensors] those that are merged as matrices; NULL: none */
    bool *is_spread; /* [tensors] and of these, those on a grid */
    am_span
        *staged; /* [2 * (base, models, Gram matrices)] what sources were told of them, by turns */
    am_dense_run dense;

    am_merge_result result;
    am_progress progress;
} am_engine;

/** At least `bytes` in the room; contents are kept. Errors: AM_E_NOMEM naming `what`. */
int am_room_need(am_room *room, int64_t bytes, const char *what);
void am_room_free(am_room *room);

/* ---- merge.c ---- */

/** The engine of a job before units are known, and its end. */
am_engine am_engine_make(const am_merge_job *job);
void am_engine_close(am_engine *e);
/** Sizes of buffers for e->order; and the bytes of all buffers, those of units aside. */
void am_engine_size(am_engine *e);
int64_t am_engine_bytes(const am_engine *e);
/** Whether a method looks at rounded task vectors anywhere. Pure. */
bool am_method_rounds(const am_method *method);
/** The group that starts at span `first` of e->order. Pure. */
am_group am_group_at(const am_engine *e, int64_t first);
/** Elements to take of a span from lo on with `room` left in a batch: where a method has tiles,
 * whole tiles. Pure. */
int64_t am_batch_take(const am_engine *e, const am_span *span, int64_t lo, int64_t room);
/** Copied tensors come from the base, or from the first model that has them. NULL: none. Pure. */
const am_merge_input *am_copy_input(const am_merge_job *job, int64_t tensor);

/* ---- units.c ---- */

/** Elements of a tile of this tensor: AM_TILE, or whole rows. Pure. */
int64_t am_tile_cut(const am_engine *e, int64_t tensor, bool *by_rows, int64_t *cols);
/** Whether reductions run over this tensor: not of copied, empty or absent ones. Pure. */
bool am_is_reduced(const am_engine *e, int64_t tensor);
/** What is known of one tensor's models: index, T, parameters, generators. Local. */
void am_bind(am_engine *e, int64_t tensor);
/** A run of the unit of one tensor, or with scope global of all, before its first pass. */
void am_unit_open(const am_engine *e, int64_t tensor, am_unit_run *run);
/** Whether the method gets a tensor's task vectors as products (am_unit.factor_rank): the models'
 * elements are not read then. Pure. */
bool am_is_factored(const am_engine *e, int64_t tensor);
void am_unit_free(am_unit_run *run);
/** Whether every tensor has what the method needs; pure in what is the same on all ranks. Errors:
 * AM_E_DATA. */
int am_units_check(const am_engine *e);
/** Spans of a slice cut where tiles begin: out [slice->n]; e->max_tile grows. Returns how many. */
int64_t am_units_cut(am_engine *e, const am_slice *slice, am_span *out);
/** Whether a span is only a part of a tensor that is reduced. Pure. */
bool am_units_is_part(const am_engine *e, const am_span *span);
/** Sort id [n], drop negative ones and repeats. Returns how many are left. */
int64_t am_units_distinct(int64_t *id, int64_t n);
/** Scope global: all floats are one unit; it is opened before spans are cut, because rows may
 * depend on it. Errors: AM_E_NOMEM. */
int am_units_open_global(am_engine *e);
/** Fill e->order [n] with the spans, those of shared units first. */
void am_units_order(am_engine *e, const am_span *spans, int64_t n);

/* ---- sets.c ---- */

/** Cut the shared units `parts` (moved) into sets of at most job->unit_bytes, for `size` ranks, and
 * make room for the largest set. Errors: AM_E_NOMEM; local. */
int am_sets_plan(am_engine *e, int size, int64_t *parts, int64_t n_parts);
/** Cut the slice where tiles begin, find the units that several ranks share, and fill order,
 * n_order, n_order_shared, shared, n_shared.
 * Collective [comm]. Errors: AM_E_NOMEM; AM_E_DATA a tensor that too few models have; agreed. */
int am_sets_plan_all(MPI_Comm comm, am_engine *e, const am_slice *slice);
/** The set of the shared unit that a tensor belongs to. Pure. */
int64_t am_sets_find(const am_engine *e, int64_t tensor);
/** Make the units of a set the shared ones, before their first pass. */
void am_sets_open(am_engine *e, int64_t set);
/** The unit that a piece belongs to. */
am_unit_run *am_unit_of(am_engine *e, int64_t tensor, bool is_shared);

/* ---- window.c---- */

/** Visit a piece of a batch tile by tile. combine stores it. Local. */
int am_visit_piece(am_engine *e, am_unit_run *run, const am_span *piece, am_visit visit);
/** Visit a sample of a piece for an order: short runs of elements, one in every stride, at places
 * that depend on the tensor alone. In a staged piece they lie closer together. Local. */
int am_sample_piece(am_engine *e, am_unit_run *run, const am_span *piece, bool is_staged);

/** Store elements [lo, hi) of a tensor, at most a tile, from e->out. Errors: AM_E_NUMERIC a number
 * that the output's dtype cannot hold; the sink's. */
int am_store_part(am_engine *e, const am_span *span);

/* ---- dense.c ---- */

/** Find the tensors that are merged as matrices: e->is_dense, e->is_spread. Errors: AM_E_NOMEM;
 * AM_E_DATA one that is too large for LAPACK or for the grid. Local, the same on all ranks. */
int am_dense_find(am_engine *e);
bool am_is_dense(const am_engine *e, int64_t tensor);
bool am_is_spread(const am_engine *e, int64_t tensor);
/** Bytes of a matrix, of a grid on one of its ranks, with all that is made of it. */
int64_t am_dense_unit_bytes(const am_method *method, const am_unit *unit);
/** Bytes of the largest matrix of e->order with all that is made of it. */
int64_t am_dense_bytes(const am_engine *e);
/** And what libraries take while they work on matrices of e->order, at most. */
int64_t am_dense_besides(const am_engine *e);
/** Seconds that a matrix takes at most, on a slow processor: a rank that has none waits so long. */
double am_dense_seconds(const am_engine *e);
/** Room for the matrices of a rank, whole or on a grid. Errors: AM_E_NOMEM. */
int am_dense_reserve(am_engine *e, int rank);
/** Before the first batch of a matrix; `span` is all of it. */
void am_dense_open(am_engine *e, const am_span *span);
void am_dense_gather(am_engine *e, const am_tile *tile);
/** After its last batch: merge and store it. Errors: the method's, naming the tensor; those of
 * am_store_part. */
int am_dense_finish(am_engine *e);
/** Merge the matrix of e->local, which lies in e->dense. Errors: the method's, naming the tensor.
 */
int am_dense_merge(am_engine *e);

/* ---- spread.c ---- */

/** The rank that reads and stores a block (AM_BLOCK) of a matrix on a grid. Pure. */
int am_spread_owner(const am_layout *layout, int64_t block);
/** Bytes of the largest matrix on a grid with all that is made of it, on a rank; 0 beside the grid.
 */
int64_t am_spread_bytes(const am_engine *e, int rank);
/** And what libraries take. */
int64_t am_spread_besides(const am_engine *e, int rank);
/** Merge the matrices on a grid of which any rank's slice has a part.
 *
 * Collective [comm]. One agreement for each matrix on all ranks, and many among those of the grid.
 * Errors: as am_merge_run_all. */
int am_spread_run_all(MPI_Comm comm, am_engine *e, const am_slice *slice);

/* ---- pass.c ---- */

/** Begin pass p of the units: e->is_open says whether it needs a visit. Errors: AM_E_NOMEM; local.
 */
int am_pass_begin(am_engine *e, MPI_Comm comm, am_unit_run *run, int64_t n, int p);
/** Whether the next visit is of a sample only. */
bool am_pass_samples(const am_engine *e);
/** Begin a visit: cleared counts, and ties counted from this rank's first element. */
void am_pass_visit(am_engine *e, am_unit_run *run, int64_t n);
/** Add a tile to the pass under way. */
void am_pass_tile(am_engine *e, am_unit_run *run, am_tile *tile);
/** Reduce a visit over the ranks; e->is_open says whether another is needed.
 * Collective [comm]; agreed before, it cannot fail on one rank. */
int am_pass_reduce_all(MPI_Comm comm, am_engine *e, am_unit_run *run, int64_t n);
/* What the passes of a unit take. */
typedef struct am_weight {
    int64_t kept;    /* bytes that the unit holds at its end */
    int64_t sums;    /* exact sums of the pass that has most */
    int64_t streams; /* of the order that has most */
    int64_t cuts;    /* of the order that has most */
    int pass_count[AM_METHOD_MAX_PASSES], pass_cuts[AM_METHOD_MAX_PASSES];
} am_weight;
/** Weigh an opened unit, from its shape alone; it is to be opened again. Errors: AM_E_NOMEM. */
int am_pass_weigh(am_engine *e, am_unit_run *run, am_weight *out);
/** End the pass: hand what it found to the units, and solve. Errors: AM_E_NUMERIC. */
int am_pass_end(am_engine *e, am_unit_run *run, int64_t n, int p);

#endif
