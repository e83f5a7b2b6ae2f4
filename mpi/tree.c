/* Sums of vectors on a fixed binary tree over the leaves.
 *
 * A rank adds its leaves as they come and keeps a stack of maximal complete subtrees (at most two
 * for each level). For the exchange every rank is the owner of a part of the elements: it receives
 * that part of all other ranks' subtrees, straight from their stacks, finishes the tree on it, and
 * hands the result round.
 *
 *   leaves   0 1 2 | 3 4 5 | 6 7      M = 8 on 3 ranks
 *   subtrees (01)(2) (3)(45) (67)     what travels: 5 vectors, not 8
 *
 * Where all ranks share a node, nothing travels: the stacks lie in shared memory, and an owner adds
 * its part of all subtrees where they are, into a root that all ranks read.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/reduce.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/clones.h"
#include "mpi/partition.h"
#include "mpi/rng.h"
#include "mpi/shared.h"

enum { DEEPEST = 128 }; /* two subtrees for each of at most 63 levels, and the newest */
static const int64_t window_most = INT64_C(1) << 18; /* reals */
static const int64_t inbox_bytes = INT64_C(64) << 20;

/* A node of the tree and the vector that holds its sum. */
typedef struct node {
    int level;
    int64_t index;
    void *vector;
} node;

typedef struct stack {
    int depth;
    node at[DEEPEST];
} stack;

struct am_tree {
    MPI_Comm comm;
    int rank, size, bytes_per_real;
    int64_t leaves, n, lo, hi, next; /* next: the leaf that am_tree_push takes */
    stack own;
    int buffers;
    void *spare[DEEPEST]; /* vectors not on the stack */
    int spares;
    /* the exchange */
    int64_t window;     /* reals of each part exchanged at a time */
    int64_t nodes;      /* subtrees of all ranks */
    int64_t most_nodes; /* of one rank */
    node *all;          /* [nodes] in leaf order; vectors point into the inbox */
    int64_t *first;     /* [size + 1] first subtree of a rank in all */
    int64_t *lengths;   /* [4][size] scratch: offsets and lengths of messages */
    am_arena vectors, inbox;
    /* on one node: instead of vectors and inbox */
    bool is_shared;
    am_shared
        memory; /* places [size][DEEPEST], the root [n], the vectors of rank 0, of rank 1, ... */
    int64_t *place; /* in memory: offset of the vector of each rank's k-th subtree */
    unsigned char *root;
    int64_t *vectors_at; /* [size + 1] owned: offset of a rank's vectors in memory */
};

/* ---- the shape of the tree ---- */

/* The last node of a level with an even index has no partner and is its own parent. */
static void climb_alone(node *top, int64_t leaves)
{
    while ((leaves - 1) >> top->level > 0 && top->index % 2 == 0 &&
           top->index == (leaves - 1) >> top->level) {
        top->level++;
        top->index /= 2;
    }
}

static bool can_merge(const stack *s)
{
    if (s->depth < 2) {
        return false;
    }
    const node *left = &s->at[s->depth - 2], *right = &s->at[s->depth - 1];
    return left->level == right->level && left->index % 2 == 0 && left->index + 1 == right->index;
}

/* Replace the two topmost nodes by their parent, which takes the vector of the left one. */
static void merge_top(stack *s, int64_t leaves)
{
    node *left = &s->at[s->depth - 2];
    s->depth--;
    left->level++;
    left->index /= 2;
    climb_alone(left, leaves);
}

static void put_on(stack *s, node new, int64_t leaves)
{
    AM_ASSERT(s->depth < DEEPEST);
    climb_alone(&new, leaves);
    s->at[s->depth++] = new;
}

/* The subtrees that leaves [lo, hi) end in; *deepest: vectors in use on the way. */
static void plan_stack(int64_t leaves, int64_t lo, int64_t hi, stack *s, int *deepest)
{
    s->depth = 0;
    *deepest = 0;
    for (int64_t i = lo; i < hi; i++) {
        put_on(s, (node){.index = i}, leaves);
        *deepest = s->depth > *deepest ? s->depth : *deepest;
        while (can_merge(s)) {
            merge_top(s, leaves);
        }
    }
}

/* ---- additions ---- */

AM_CLONES static void add_f32(float *restrict to, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = a[i] + b[i];
    }
}

AM_CLONES static void add_f64(double *restrict to, const double *a, const double *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = a[i] + b[i];
    }
}

AM_CLONES static void add_to_f32(float *restrict a, const float *restrict b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        a[i] += b[i];
    }
}

AM_CLONES static void add_to_f64(double *restrict a, const double *restrict b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        a[i] += b[i];
    }
}

/* to := a + b; `to` may be a. */
static void add(const am_tree *tree, void *to, void *a, const void *b, int64_t n)
{
    if (tree->bytes_per_real == 4) {
        if (to == a) {
            add_to_f32(a, b, n);
        } else {
            add_f32(to, a, b, n);
        }
    } else if (to == a) {
        add_to_f64(a, b, n);
    } else {
        add_f64(to, a, b, n);
    }
}

/* ---- plan ---- */

void am_tree_part(int64_t n, int size, int rank, int64_t *lo, int64_t *hi)
{
    am_part_range(am_part_units(n, AM_TREE_UNIT), size, rank, lo, hi);
    *lo *= AM_TREE_UNIT;
    *hi = *hi * AM_TREE_UNIT < n ? *hi * AM_TREE_UNIT : n;
    *lo = *lo < *hi ? *lo : *hi;
}

static int64_t part_length(const am_tree *tree, int part)
{
    int64_t lo = 0, hi = 0;
    am_tree_part(tree->n, tree->size, part, &lo, &hi);
    return hi - lo;
}

/* List every rank's subtrees; with `all` NULL only count them. */
static void list_nodes(am_tree *tree, node *all)
{
    stack s;
    int deepest = 0;
    tree->nodes = 0;
    tree->most_nodes = 0;
    for (int r = 0; r < tree->size; r++) {
        int64_t lo = 0, hi = 0;
        am_part_range(tree->leaves, tree->size, r, &lo, &hi);
        plan_stack(tree->leaves, lo, hi, &s, &deepest);
        if (all != NULL) {
            tree->first[r] = tree->nodes;
            memcpy(all + tree->nodes, s.at, (size_t)s.depth * sizeof *all);
        }
        if (r == tree->rank) {
            tree->buffers = deepest;
        }
        if (tree->vectors_at != NULL) { /* counts first, see plan_memory */
            tree->vectors_at[r + 1] = deepest;
        }
        tree->nodes += s.depth;
        tree->most_nodes = s.depth > tree->most_nodes ? s.depth : tree->most_nodes;
    }
    if (all != NULL) {
        tree->first[tree->size] = tree->nodes;
    }
}

static size_t vector_bytes(const am_tree *tree)
{
    return am_arena_need((size_t)(tree->n * tree->bytes_per_real));
}

/* Vectors for the own stack. */
static int make_vectors(am_tree *tree)
{
    int rc = 0;
    size_t bytes = vector_bytes(tree);
    AM_TRY(am_arena_create(&tree->vectors, bytes * (size_t)tree->buffers, "the sums of gradients"));
    for (int i = 0; i < tree->buffers; i++) {
        tree->spare[tree->spares++] = am_arena_take(&tree->vectors, bytes);
    }
cleanup:
    return rc;
}

/* Room for one window of every other rank's subtrees. */
static int make_inbox(am_tree *tree)
{
    int rc = 0;
    int64_t foreign = tree->nodes - (tree->first[tree->rank + 1] - tree->first[tree->rank]);
    int64_t fits = inbox_bytes / tree->bytes_per_real / (foreign > 0 ? foreign : 1);
    tree->window = fits < window_most ? fits : window_most;
    tree->window = tree->window > 1024 ? tree->window : 1024;
    if (tree->window > part_length(tree, 0)) {
        tree->window = part_length(tree, 0); /* the longest */
    }
    size_t bytes = am_arena_need((size_t)(tree->window * tree->bytes_per_real));
    AM_TRY(am_arena_create(&tree->inbox, bytes * (size_t)foreign, "the exchange of gradients"));
    for (int64_t i = 0; i < tree->nodes; i++) {
        bool is_own = i >= tree->first[tree->rank] && i < tree->first[tree->rank + 1];
        tree->all[i].vector = is_own ? NULL : am_arena_take(&tree->inbox, bytes);
    }
cleanup:
    return rc;
}

/* Where everything lies in shared memory; returns its size. */
static int64_t plan_memory(am_tree *tree)
{
    const int64_t vector = (int64_t)vector_bytes(tree);
    int64_t at = (int64_t)am_arena_need((size_t)tree->size * DEEPEST * sizeof *tree->place);
    tree->vectors_at[0] = at + vector; /* after the root */
    for (int r = 0; r < tree->size; r++) {
        tree->vectors_at[r + 1] = tree->vectors_at[r] + vector * tree->vectors_at[r + 1];
    }
    return tree->vectors_at[tree->size];
}

static void use_memory(am_tree *tree)
{
    const int64_t vector = (int64_t)vector_bytes(tree);
    tree->is_shared = true;
    tree->place = (int64_t *)(void *)tree->memory.base;
    tree->root = tree->memory.base + tree->vectors_at[0] - vector;
    for (int i = 0; i < tree->buffers; i++) {
        tree->spare[tree->spares++] = tree->memory.base + tree->vectors_at[tree->rank] + i * vector;
    }
}

/* What does not depend on where the vectors lie. */
static int make_lists(am_tree *tree)
{
    tree->all = NULL;
    if (tree->size > 1) {
        tree->vectors_at = am_new(tree->size + 1, sizeof *tree->vectors_at, "a reduction tree");
        if (tree->vectors_at == NULL) {
            return AM_E_NOMEM;
        }
    }
    list_nodes(tree, NULL);
    if (tree->size == 1) {
        return 0;
    }
    tree->all = am_new(tree->nodes, sizeof *tree->all, "a reduction tree");
    tree->first = am_new(tree->size + 1, sizeof *tree->first, "a reduction tree");
    tree->lengths = am_new(4 * (int64_t)tree->size, sizeof *tree->lengths, "a reduction tree");
    if (tree->all == NULL || tree->first == NULL || tree->lengths == NULL) {
        return AM_E_NOMEM;
    }
    list_nodes(tree, tree->all);
    return 0;
}

/* Private vectors, and the room for messages. */
static int make_private(am_tree *tree)
{
    int rc = make_vectors(tree);
    if (tree->size > 1) {
        AM_KEEP(make_inbox(tree));
    }
    return rc;
}

int am_tree_bytes(int64_t leaves, int64_t n, int bytes_per_real, int size, int rank, bool is_shared,
                  am_tree_end end, int64_t *out)
{
    am_tree tree = {
        .leaves = leaves, .n = n, .bytes_per_real = bytes_per_real, .rank = rank, .size = size};
    int rc = make_lists(&tree);
    const int64_t vector = (int64_t)vector_bytes(&tree);
    int64_t lo = 0, hi = 0;
    am_tree_part(n, size, rank, &lo, &hi);
    const int64_t part = (hi - lo) * bytes_per_real, sum = end == AM_TREE_PARTS ? part : vector;
    *out = tree.buffers * vector;
    if (size == 1) {
        *out += end == AM_TREE_ROOT ? 0 : vector;
    } else if (rc == 0 && is_shared) { /* the own part of the others' subtrees; the root */
        const int64_t foreign = tree.nodes - (tree.first[rank + 1] - tree.first[rank]);
        *out += foreign * part + sum + (end == AM_TREE_EVERYWHERE ? vector : 0);
    } else if (rc == 0) {
        rc = make_inbox(&tree);
        *out += (int64_t)tree.inbox.capacity + sum;
    }
    free(tree.all);
    free(tree.first);
    free(tree.lengths);
    free(tree.vectors_at);
    am_arena_destroy(&tree.inbox);
    return rc;
}

int am_tree_create_all(MPI_Comm comm, int64_t leaves, int64_t n, int bytes_per_real, am_tree **out)
{
    int rc = 0;
    const int64_t arguments[3] = {leaves, n, bytes_per_real};
    AM_ASSERT(leaves > 0 && n >= 0 && (bytes_per_real == 4 || bytes_per_real == 8));
    *out = NULL;
    AM_TRY(am_same_all(comm, am_hash64(arguments, (int64_t)sizeof arguments, 0),
                       "the shape of a reduction tree"));
    am_tree *tree = am_new(1, sizeof *tree, "a reduction tree");
    if (tree == NULL) {
        rc = AM_E_NOMEM;
    } else {
        *tree = (am_tree){.comm = comm, .leaves = leaves, .n = n, .bytes_per_real = bytes_per_real};
        AM_KEEP(am_mpi_code(MPI_Comm_rank(comm, &tree->rank), "MPI_Comm_rank"));
        AM_KEEP(am_mpi_code(MPI_Comm_size(comm, &tree->size), "MPI_Comm_size"));
        am_part_range(leaves, tree->size, tree->rank, &tree->lo, &tree->hi);
        tree->next = tree->lo;
        AM_KEEP(make_lists(tree));
    }
    *out = tree;
    AM_AGREE(comm);
    bool is_shared = false;
    if (tree->size > 1) {
        AM_TRY(am_shared_create_all(comm, plan_memory(tree), &tree->memory, &is_shared));
    }
    if (is_shared) {
        use_memory(tree);
    } else {
        AM_KEEP(make_private(tree));
    }
    AM_AGREE(comm);
cleanup:
    if (rc != 0) {
        am_tree_free(out);
    }
    return rc;
}

void am_tree_free(am_tree **tree)
{
    if (*tree != NULL) {
        free((*tree)->all);
        free((*tree)->first);
        free((*tree)->lengths);
        free((*tree)->vectors_at);
        am_shared_destroy(&(*tree)->memory);
        am_arena_destroy(&(*tree)->vectors);
        am_arena_destroy(&(*tree)->inbox);
        free(*tree);
        *tree = NULL;
    }
}

/* ---- leaves ---- */

void am_tree_leaves(const am_tree *tree, int64_t *lo, int64_t *hi)
{
    *lo = tree->lo;
    *hi = tree->hi;
}

void *am_tree_next(am_tree *tree)
{
    AM_ASSERT(tree->next < tree->hi && tree->spares > 0);
    return tree->spare[tree->spares - 1];
}

void am_tree_push(am_tree *tree)
{
    void *filled = am_tree_next(tree);
    stack *s = &tree->own;
    tree->spares--;
    put_on(s, (node){.index = tree->next++, .vector = filled}, tree->leaves);
    while (can_merge(s)) {
        node *left = &s->at[s->depth - 2], *right = &s->at[s->depth - 1];
        add(tree, left->vector, left->vector, right->vector, tree->n);
        tree->spare[tree->spares++] = right->vector;
        merge_top(s, tree->leaves);
    }
}

/* ---- exchange ---- */

/* Window [from, from + window) of part r: its place in the vector and length, in bytes. */
static void window_of(const am_tree *tree, int r, int64_t from, int64_t *at, int64_t *bytes)
{
    int64_t lo = 0, hi = 0;
    am_tree_part(tree->n, tree->size, r, &lo, &hi);
    int64_t begin = lo + from < hi ? lo + from : hi;
    int64_t end = begin + tree->window < hi ? begin + tree->window : hi;
    *at = begin * tree->bytes_per_real;
    *bytes = (end - begin) * tree->bytes_per_real;
}

/* Exchange one window of the k-th subtree of every rank. The own part stays where it is. */
static int exchange_window_all(am_tree *tree, int64_t from, int64_t k)
{
    int size = tree->size;
    int64_t *send_at = tree->lengths, *send_bytes = send_at + size, *receive_at = send_bytes + size;
    int64_t *receive_bytes = receive_at + size, own_at = 0, own_bytes = 0;
    window_of(tree, tree->rank, from, &own_at, &own_bytes);
    for (int r = 0; r < size; r++) {
        bool is_sent = k < tree->own.depth && r != tree->rank;
        bool is_received = k < tree->first[r + 1] - tree->first[r] && r != tree->rank;
        send_at[r] = send_bytes[r] = receive_at[r] = receive_bytes[r] = 0;
        if (is_sent) {
            window_of(tree, r, from, &send_at[r], &send_bytes[r]);
        }
        if (is_received) {
            const unsigned char *slot = tree->all[tree->first[r] + k].vector;
            receive_at[r] = slot - tree->inbox.base;
            receive_bytes[r] = own_bytes;
        }
    }
    return am_exchange_all(tree->comm, k < tree->own.depth ? tree->own.at[k].vector : NULL,
                           send_bytes, send_at, tree->inbox.base, receive_bytes, receive_at);
}

/* Add `reals` reals of all subtrees, vectors in tree->all, up to the root; the last addition writes
 * to `sum`. Left vectors are spoiled. */
static void finish(const am_tree *tree, const node *all, int64_t reals, unsigned char *sum)
{
    stack s = {.depth = 0};
    int64_t merges = 0;
    for (int64_t i = 0; i < tree->nodes; i++) {
        put_on(&s, all[i], tree->leaves);
        while (can_merge(&s)) {
            node *left = &s.at[s.depth - 2], *right = &s.at[s.depth - 1];
            merges++;
            void *to = merges == tree->nodes - 1 ? sum : left->vector;
            add(tree, to, left->vector, right->vector, reals);
            merge_top(&s, tree->leaves);
        }
    }
    AM_ASSERT(s.depth == 1);
    if (tree->nodes == 1) {
        memcpy(sum, s.at[0].vector, (size_t)(reals * tree->bytes_per_real));
    }
}

/* The window of the own part, from the inbox and the own stack, into its place of the sum. */
static void finish_window(am_tree *tree, int64_t from, unsigned char *sum)
{
    int64_t at = 0, bytes = 0;
    window_of(tree, tree->rank, from, &at, &bytes);
    if (bytes == 0) {
        return;
    }
    for (int64_t k = 0; k < tree->own.depth; k++) {
        tree->all[tree->first[tree->rank] + k].vector =
            (unsigned char *)tree->own.at[k].vector + at;
    }
    finish(tree, tree->all, bytes / tree->bytes_per_real, sum + at);
}

/* The own part of the sum straight from everybody's stack, a cached run at a time. */
static void finish_shared(am_tree *tree, unsigned char *sum)
{
    int64_t lo = 0, hi = 0;
    am_tree_part(tree->n, tree->size, tree->rank, &lo, &hi);
    for (; lo < hi; lo += AM_TREE_UNIT) {
        const int64_t at = lo * tree->bytes_per_real;
        for (int r = 0; r < tree->size; r++) {
            for (int64_t i = tree->first[r]; i < tree->first[r + 1]; i++) {
                const int64_t k = i - tree->first[r];
                tree->all[i].vector = tree->memory.base + tree->place[r * DEEPEST + k] + at;
            }
        }
        finish(tree, tree->all, hi - lo < AM_TREE_UNIT ? hi - lo : AM_TREE_UNIT, sum + at);
    }
}

/* Sum the own part into `sum` (whole vectors): nobody reads a stack after it. */
static int sum_shared_all(am_tree *tree, unsigned char *sum)
{
    int rc = 0;
    for (int k = 0; k < tree->own.depth; k++) {
        tree->place[tree->rank * DEEPEST + k] =
            (unsigned char *)tree->own.at[k].vector - tree->memory.base;
    }
    AM_TRY(am_shared_barrier_all(tree->comm));
    finish_shared(tree, sum);
    AM_TRY(am_shared_barrier_all(tree->comm));
cleanup:
    return rc;
}

static int gather_parts_all(am_tree *tree, void *sum)
{
    int64_t *at = tree->lengths, *bytes = at + tree->size;
    for (int r = 0; r < tree->size; r++) {
        int64_t lo = 0, hi = 0;
        am_tree_part(tree->n, tree->size, r, &lo, &hi);
        at[r] = lo * tree->bytes_per_real;
        bytes[r] = (hi - lo) * tree->bytes_per_real;
    }
    return am_gather_all(tree->comm, sum, bytes, at);
}

static void make_ready(am_tree *tree)
{
    while (tree->own.depth > 0) {
        tree->spare[tree->spares++] = tree->own.at[--tree->own.depth].vector;
    }
    tree->next = tree->lo;
}

static int sum_private_all(am_tree *tree, unsigned char *sum, bool everywhere)
{
    int rc = 0;
    for (int64_t from = 0; from < part_length(tree, 0); from += tree->window) {
        for (int64_t k = 0; k < tree->most_nodes; k++) {
            AM_TRY(exchange_window_all(tree, from, k));
        }
        finish_window(tree, from, sum);
    }
    if (everywhere) {
        AM_TRY(gather_parts_all(tree, sum));
    }
cleanup:
    return rc;
}

int am_tree_sum_all(am_tree *tree, void *sum, bool everywhere)
{
    int rc = 0;
    const size_t bytes = (size_t)(tree->n * tree->bytes_per_real);
    AM_ASSERT(tree->next == tree->hi); /* every own leaf is pushed */
    if (tree->size == 1) {
        memcpy(sum, tree->own.at[0].vector, bytes);
    } else if (!tree->is_shared) {
        rc = sum_private_all(tree, sum, everywhere);
    } else if (everywhere) {
        rc = sum_shared_all(tree, tree->root);
        memcpy(sum, tree->root, bytes);
    } else {
        rc = sum_shared_all(tree, sum);
    }
    make_ready(tree);
    return rc;
}

int am_tree_root_all(am_tree *tree, void *buffer, const void **root)
{
    int rc = 0;
    AM_ASSERT(tree->next == tree->hi);
    *root = buffer;
    if (tree->size == 1) {
        *root = tree->own.at[0].vector; /* stays until the next leaf is made */
    } else if (tree->is_shared) {
        rc = sum_shared_all(tree, tree->root);
        *root = tree->root;
    } else {
        rc = sum_private_all(tree, buffer, true);
    }
    make_ready(tree);
    return rc;
}
