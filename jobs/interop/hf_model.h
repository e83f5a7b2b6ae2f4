/* A folder in Hugging Face layout as a network of ours: which of its tensors are which parts of
 * ours, and the values moved between the two, exactly, both ways. Whole models in memory, in f64.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_INTEROP_HF_MODEL_H
#define AM_JOBS_INTEROP_HF_MODEL_H

#include "io/checkpoint/checkpoint.h"
#include "jobs/interop/config.h"
#include "solver/training/net.h"

/* Rows [row, row + rows) of our tensor, seen as a matrix of `cols` columns, and where they are. */
typedef struct am_hf_part {
    int64_t ours, theirs; /* tensors of trunk.tensors and of mapped */
    int64_t row, rows, cols;
    bool is_transposed;
} am_hf_part;

typedef struct am_hf_model {
    am_hf_config config;
    const am_hf_architecture *architecture;
    am_net net;             /* owned, shaped */
    am_param_layout trunk;  /* owned, F64 */
    am_param_layout head;   /* owned, F64; n is 0 when the folder has none */
    am_ckpt *ckpt;          /* owned: the folder */
    am_tensor_table mapped; /* owned: its tensors that are ours, as F64 */
    int64_t *offset;        /* [mapped.n] owned; in a block of `reals` */
    int64_t reals;
    am_hf_part *part; /* [n_parts] owned */
    int n_parts;
    int64_t weight, bias; /* of the head in mapped, -1: none (tied, or no head at all) */
} am_hf_model;

/** Open a folder and match its tensors with ours.
 *
 * Collective [comm]; arguments [same]. context: positions of a sample, 0: as many as the model has
 * (images: 0). Errors, agreed, naming file and tensor: those of am_hf_config_read_all and
 * am_ckpt_open_all; AM_E_RECIPE sizes that the preset refuses, or more positions than there are;
 * AM_E_DATA a tensor that is missing, has another shape, or that we have no place for; AM_E_NOMEM.
 * out: freed by am_hf_model_close, also after an error. */
int am_hf_model_open_all(MPI_Comm comm, const char *folder, int64_t context, am_hf_model *out);
void am_hf_model_close(am_hf_model *model); /* accepts a zeroed one */

/** Values of the mapped tensors. Collective [comm]. theirs [reals]. */
int am_hf_model_load_all(MPI_Comm comm, const am_hf_model *model, double *theirs);
/** Between their block and our trunk and head (NULL: left alone). A head that they do not have is
 * the token embedding. Local, pure. */
void am_hf_model_to_ours(const am_hf_model *model, const double *theirs, double *trunk,
                         double *head);
void am_hf_model_to_theirs(const am_hf_model *model, const double *trunk, const double *head,
                           double *theirs);
/** Can trunk and head be written in their form? Errors: AM_E_DATA a tied head that is not the token
 * embedding (says to freeze it), a bias that they have no place for. Local, pure. */
int am_hf_model_check_head(const am_hf_model *model, const char *path, const double *trunk,
                           const double *head);

/** Write a checkpoint: tensor i of `tensors` from block + offset[i], rounded once to its dtype, or
 * copied bit by bit from the tensor of its name in model->ckpt where offset[i] is negative.
 *
 * Collective [comm]; arguments [same]. Errors: those of am_ckpt_create_all and the sink, agreed. */
int am_hf_model_write_all(MPI_Comm comm, const am_hf_model *model, const char *path,
                          const am_tensor_table *tensors, const int64_t *offset,
                          const double *block, const am_ckpt_options *options);

#endif
