/* Statistics of the models that are merged, for methods that need them (fisher, regmean): made in
 * the task groups as `allmerge stats` makes them, kept in the run folder, read by the merges.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_ITERATE_MODEL_STATS_H
#define AM_JOBS_TRAINING_ITERATE_MODEL_STATS_H

#include "jobs/training/iterate/iterate.h"

/* What a rank keeps of a file between two merges: bytes that a source may hold. */
enum { AM_MODEL_STATS_HELD = 1 << 19, AM_MODEL_STATS_SOURCE = 1 << 18 };

struct am_model_stats {
    int n;
    am_ckpt **ckpt;         /* [n] owned */
    am_source *source;      /* [n] owned */
    int64_t *index;         /* [2][n][tensors] owned */
    am_merge_input *fisher; /* [n] owned; NULL: none was made */
    am_merge_input *gram;   /* [n] likewise */
};

/** The network as statistics see it: whole, whatever training freezes, and labels as they are.
 * Local; out: freed by am_net_free, also after an error. Errors: those of am_net_shape. */
int am_model_stats_net(const am_net *net, int64_t features, am_net *out);

/** Bytes of the statistics of a model, 0: none are needed. Local. Errors: those of
 * am_model_stats_net and of am_stats_layout_make. */
int am_model_stats_bytes(const am_iterate *it, int64_t *bytes);

/** Statistics of the own tasks' models in it->trunk, on their training samples, as
 * RUN/FOLDER/TASK-END.h5, if one of the n merges needs some; a sound file of the same model is
 * not made again. it->stats is what the pool's merges read then, on every rank.
 * Collective [it->suite.comm]; folder, end [same]. Errors: those of `stats`; AM_E_STOPPED: what
 * there is has been saved. */
int am_iterate_stats_all(am_iterate *it, const am_train_merge *merges, int n, const char *folder,
                         const char *end);
void am_iterate_stats_free(am_iterate *it);

#endif
