/* Vocabulary: element types, tensors and tables of tensors. Conversion between types is io/dtype.h.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_TENSOR_H
#define AM_MPI_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

/* X(enum, safetensors name, mergekit/torch name, bytes, is float) */
#define AM_DTYPE_LIST(X)                                                                           \
    X(F64, "F64", "float64", 8, true)                                                              \
    X(F32, "F32", "float32", 4, true)                                                              \
    X(F16, "F16", "float16", 2, true)                                                              \
    X(BF16, "BF16", "bfloat16", 2, true)                                                           \
    X(I64, "I64", "int64", 8, false)                                                               \
    X(I32, "I32", "int32", 4, false)                                                               \
    X(I16, "I16", "int16", 2, false)                                                               \
    X(I8, "I8", "int8", 1, false)                                                                  \
    X(U64, "U64", "uint64", 8, false)                                                              \
    X(U32, "U32", "uint32", 4, false)                                                              \
    X(U16, "U16", "uint16", 2, false)                                                              \
    X(U8, "U8", "uint8", 1, false)                                                                 \
    X(BOOL, "BOOL", "bool", 1, false)

#define AM_DTYPE_ENUM(name, st, torch, bytes, is_float) AM_DTYPE_##name,
typedef enum am_dtype { AM_DTYPE_LIST(AM_DTYPE_ENUM) AM_DTYPE_COUNT } am_dtype;
#undef AM_DTYPE_ENUM

int64_t am_dtype_bytes(am_dtype dtype);
bool am_dtype_is_float(am_dtype dtype);
const char *am_dtype_name(am_dtype dtype); /* "F32" */
/** Reads "F32", "float32", "fp32", "f32", "bf16", "half" ... case-insensitively.
 * Returns AM_DTYPE_COUNT when the name is unknown. */
am_dtype am_dtype_parse(const char *name);

enum { AM_MAX_DIMS = 8, AM_MAX_NAME = 4096 };

typedef struct am_tensor {
    char *name; /* owned by its table; UTF-8, no control bytes, 1..AM_MAX_NAME bytes */
    am_dtype dtype;
    int ndim;                   /* 0 for a scalar, numel is 1 then */
    int64_t shape[AM_MAX_DIMS]; /* row-major */
    int64_t numel;              /* product of shape; 0 allowed */
} am_tensor;

typedef struct am_tensor_table {
    int64_t n;
    am_tensor *t; /* [n] owned, sorted by name (bytewise), names unique once finished */
    int64_t capacity;
} am_tensor_table;

/** Append a tensor (name copied). Errors: AM_E_DATA for a bad name, rank, negative extent or a
 * product that overflows int64 bytes; AM_E_NOMEM. */
int am_tensor_table_add(am_tensor_table *table, const char *name, am_dtype dtype, int ndim,
                        const int64_t *shape);
/** Sort by name. Errors: AM_E_DATA naming a duplicate. */
int am_tensor_table_finish(am_tensor_table *table);
/** Index of `name` by binary search, -1 if absent. */
int64_t am_tensor_table_find(const am_tensor_table *table, const char *name);
int am_tensor_table_copy(const am_tensor_table *from, am_tensor_table *to);
void am_tensor_table_free(am_tensor_table *table);
int64_t am_tensor_table_bytes(const am_tensor_table *table); /* sum of numel * element bytes */
int64_t am_tensor_table_numel(const am_tensor_table *table);
/** "[3,4] F32" into a static per-thread buffer (4 in rotation), for messages. */
const char *am_tensor_describe(const am_tensor *tensor);

#endif
