/* What the merge benchmark needs besides allmerge: checkpoints to merge, the time that moving the
 * bytes alone takes, and the peak memory of a rank. Driven by merge.py.
 *
 *   mpirun -n R bench_merge_io make FOLDER MODELS BYTES   base.safetensors, m0.safetensors, ...
 *   mpirun -n R bench_merge_io floor OUT INPUT...         read all, write one, fsync; prints
 * seconds bench_merge_io peak FILE COMMAND...                   FILE.RANK: peak memory of the
 * command SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "io/dtype.h"
#include "mpi/rng.h"

enum { PIECE = 8 << 20, POOL = 1 << 20, MAX_INPUTS = 64, MAX_HEADER = 1 << 20 };

static int die(const char *what)
{
    fprintf(stderr, "bench_merge_io: %s: %s\n", what, strerror(errno));
    MPI_Abort(MPI_COMM_WORLD, 1);
    return 1;
}

/* ---- checkpoints in the shape of Llama ---- */

typedef struct shape {
    int64_t hidden, inner, vocabulary, layers, elements;
} shape;

/* As many layers as come next to the wanted size; narrower models for small ones. */
static shape choose_shape(int64_t bytes)
{
    shape s = {.hidden = 4096, .inner = 11008, .vocabulary = 32000};
    if (bytes < INT64_C(4) << 30) {
        s = (shape){.hidden = 1024, .inner = 2816, .vocabulary = 32000};
    }
    if (bytes < INT64_C(200) << 20) {
        s = (shape){.hidden = 256, .inner = 704, .vocabulary = 8000};
    }
    const int64_t layer = 4 * s.hidden * s.hidden + 3 * s.hidden * s.inner + 2 * s.hidden;
    const int64_t rest = bytes / 2 - 2 * s.vocabulary * s.hidden;
    s.layers = rest > layer ? (rest + layer / 2) / layer : 1;
    return s;
}

typedef struct header {
    char *text;
    size_t used;
    int64_t at; /* bytes of data so far */
} header;

static void add(header *h, const char *name, int64_t rows, int64_t cols)
{
    const int64_t bytes = 2 * rows * (cols > 0 ? cols : 1);
    char dims[64];
    (void)snprintf(dims, sizeof dims, cols > 0 ? "%" PRId64 ",%" PRId64 : "%" PRId64, rows, cols);
    h->used += (size_t)snprintf(
        h->text + h->used, MAX_HEADER - h->used,
        "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}",
        h->used > 1 ? "," : "", name, dims, h->at, h->at + bytes);
    h->at += bytes;
}

static void add_layer(header *h, const shape *s, int64_t layer)
{
    static const char *const square[] = {"q", "k", "v", "o"};
    char name[128];
    for (int i = 0; i < 4; i++) {
        (void)snprintf(name, sizeof name, "model.layers.%" PRId64 ".self_attn.%s_proj.weight",
                       layer, square[i]);
        add(h, name, s->hidden, s->hidden);
    }
    (void)snprintf(name, sizeof name, "model.layers.%" PRId64 ".mlp.gate_proj.weight", layer);
    add(h, name, s->inner, s->hidden);
    (void)snprintf(name, sizeof name, "model.layers.%" PRId64 ".mlp.up_proj.weight", layer);
    add(h, name, s->inner, s->hidden);
    (void)snprintf(name, sizeof name, "model.layers.%" PRId64 ".mlp.down_proj.weight", layer);
    add(h, name, s->hidden, s->inner);
    (void)snprintf(name, sizeof name, "model.layers.%" PRId64 ".input_layernorm.weight", layer);
    add(h, name, s->hidden, 0);
    (void)snprintf(name, sizeof name, "model.layers.%" PRId64 ".post_attention_layernorm.weight",
                   layer);
    add(h, name, s->hidden, 0);
}

static void make_header(const shape *s, header *h)
{
    h->text[h->used++] = '{';
    add(h, "model.embed_tokens.weight", s->vocabulary, s->hidden);
    for (int64_t layer = 0; layer < s->layers; layer++) {
        add_layer(h, s, layer);
    }
    add(h, "model.norm.weight", s->hidden, 0);
    add(h, "lm_head.weight", s->vocabulary, s->hidden);
    h->text[h->used++] = '}';
    while (h->used % 64 != 56) { /* data begins at a multiple of 64 */
        h->text[h->used++] = ' ';
    }
}

static void put(int fd, const char *path, const void *data, int64_t n, int64_t at)
{
    for (const char *p = data; n > 0;) {
        const ssize_t done = pwrite(fd, p, (size_t)n, at);
        if (done <= 0) {
            die(path);
        }
        p += done;
        n -= done;
        at += done;
    }
}

static void fill_pool(float *pool, int64_t n, uint64_t seed)
{
    const am_rng rng = am_rng_make(seed, "bench", 0, 0, "pool");
    for (int64_t i = 0; i < n; i++) {
        pool[i] = (float)am_rng_normal(&rng, i);
    }
}

/* Base: 0.02 pool[i mod POOL]; a model adds 0.001 other[i mod (POOL - 2 m - 1)], so that no two
 * stretches are alike. */
static void write_model(const char *path, int model, const header *h, const float *pool,
                        const float *other)
{
    const int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    const uint64_t length = h->used;
    static float x[PIECE / 2];
    static uint16_t y[PIECE / 2];
    if (fd < 0) {
        die(path);
    }
    put(fd, path, &length, sizeof length, 0);
    put(fd, path, h->text, (int64_t)h->used, 8);
    const int64_t period = POOL - 2 * model - 1, n = h->at / 2;
    for (int64_t lo = 0; lo < n; lo += PIECE / 2) {
        const int64_t m = n - lo < PIECE / 2 ? n - lo : PIECE / 2;
        int64_t a = lo % POOL, b = lo % period;
        for (int64_t i = 0; i < m; i++) {
            x[i] = 0.02F * pool[a] + (model >= 0 ? 0.001F * other[b] : 0);
            a = a + 1 < POOL ? a + 1 : 0;
            b = b + 1 < period ? b + 1 : 0;
        }
        am_dtype_from_f32(AM_DTYPE_BF16, x, m, y);
        put(fd, path, y, m * 2, 8 + (int64_t)h->used + lo * 2);
    }
    if (fsync(fd) != 0 || close(fd) != 0) {
        die(path);
    }
}

static int make(const char *folder, int models, int64_t bytes)
{
    int rank = 0, size = 1;
    char path[4096];
    const shape s = choose_shape(bytes);
    header h = {.text = malloc(MAX_HEADER)};
    float *pool = malloc(2 * POOL * sizeof *pool);
    if (h.text == NULL || pool == NULL) {
        return die("memory");
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    make_header(&s, &h);
    fill_pool(pool, 2 * POOL, 1);
    for (int m = rank - 1; m < models; m += size) {
        (void)snprintf(path, sizeof path, m < 0 ? "%s/base.safetensors" : "%s/m%d.safetensors",
                       folder, m);
        write_model(path, m, &h, pool, pool + POOL);
    }
    if (rank == 0) {
        printf("{\"data_bytes\": %" PRId64 ", \"layers\": %" PRId64 ", \"hidden\": %" PRId64 "}\n",
               h.at, s.layers, s.hidden);
    }
    free(h.text);
    free(pool);
    return 0;
}

/* ---- the floor ---- */

static void get(int fd, const char *path, void *data, int64_t n, int64_t at)
{
    for (char *p = data; n > 0;) {
        const ssize_t done = pread(fd, p, (size_t)n, at);
        if (done <= 0) {
            die(path);
        }
        p += done;
        n -= done;
        at += done;
    }
}

/* This rank's share of all inputs, piece by piece, and of one output as large as the first. */
static void move_bytes(const int *in, char *const *path, int inputs, int out, const char *out_path,
                       int64_t lo, int64_t hi, char *buffer)
{
    for (int64_t at = lo; at < hi; at += PIECE) {
        const int64_t n = hi - at < PIECE ? hi - at : PIECE;
        for (int k = 0; k < inputs; k++) {
            get(in[k], path[k], buffer, n, at);
        }
        put(out, out_path, buffer, n, at);
    }
    if (fsync(out) != 0) {
        die(out_path);
    }
}

static int measure_floor_all(const char *out_path, char *const *path, int inputs)
{
    int in[MAX_INPUTS], rank = 0, size = 1;
    struct stat st;
    char *buffer = aligned_alloc(4096, PIECE);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (buffer == NULL || inputs > MAX_INPUTS || stat(path[0], &st) != 0) {
        return die(path[0]);
    }
    memset(buffer, 1, PIECE);
    if (rank == 0 && unlink(out_path) != 0 && errno != ENOENT) {
        return die(out_path);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    const double start = MPI_Wtime();
    for (int k = 0; k < inputs; k++) {
        in[k] = open(path[k], O_RDONLY);
        if (in[k] < 0) {
            return die(path[k]);
        }
    }
    const int out = open(out_path, O_CREAT | O_WRONLY, 0644);
    if (out < 0) {
        return die(out_path);
    }
    move_bytes(in, path, inputs, out, out_path, st.st_size * rank / size,
               st.st_size * (rank + 1) / size, buffer);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        printf("{\"seconds\": %.6f}\n", MPI_Wtime() - start);
        (void)unlink(out_path);
    }
    free(buffer);
    return 0;
}

/* ---- peak memory ---- */

/* Runs the command in this rank's place and writes down the largest resident size, in bytes. */
static int measure_peak(const char *file, char **command)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    char path[4096];
    struct rusage usage;
    int status = 0;
    const pid_t child = fork();
    if (child == 0) {
        execvp(command[0], command);
        perror(command[0]);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child) {
        perror(command[0]);
        return 1;
    }
    (void)snprintf(path, sizeof path, "%s.%s", file, rank != NULL ? rank : "0");
    FILE *out = fopen(path, "w");
    if (out == NULL || fprintf(out, "%ld\n", usage.ru_maxrss * 1024) < 0 || fclose(out) != 0) {
        perror(path);
        return 1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    int rc = 2;
    if (argc > 3 && strcmp(argv[1], "peak") == 0) {
        return measure_peak(argv[2], argv + 3);
    }
    MPI_Init(&argc, &argv);
    if (argc == 5 && strcmp(argv[1], "make") == 0) {
        rc = make(argv[2], atoi(argv[3]), strtoll(argv[4], NULL, 10));
    } else if (argc > 3 && strcmp(argv[1], "floor") == 0) {
        rc = measure_floor_all(argv[2], argv + 3, argc - 3);
    } else {
        fprintf(stderr, "usage: see the head of tests/bench/merge_io.c\n");
    }
    MPI_Finalize();
    return rc;
}
