/* allmerge stats RECIPE --model CKPT -o OUT.h5: what a model's layers get, and its Fisher
 * information. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/stats/stats.h"

#define AM_AT(member) offsetof(am_stats_request, member)
static const am_param options[] = {
    {"output", AM_PARAM_STRING, AM_AT(output), NULL, 0, 0, NULL, "checkpoint of the statistics"},
    {"model", AM_PARAM_STRING, AM_AT(model), NULL, 0, 0, NULL, "checkpoint of a trunk"},
    {"heads", AM_PARAM_STRING, AM_AT(heads), "", 0, 0, NULL,
     "checkpoint of the heads (RUN/heads.h5); else heads: checkpoint: of the recipe"},
    {"task", AM_PARAM_STRING, AM_AT(task), "", 0, 0, NULL,
     "on the samples of this task of the recipe alone; else of all tasks"},
    {"fisher", AM_PARAM_CHOICE, AM_AT(fisher), "empirical", 0, 0, "empirical|exact|sampled|none",
     "labels of the likelihood: of the samples, all by their probability, one drawn by it; none: "
     "no Fisher information"},
    {"grams", AM_PARAM_BOOL, AM_AT(with_grams), "yes", 0, 0, NULL,
     "Gram matrices and means of the layers' inputs"},
    {"split", AM_PARAM_CHOICE, AM_AT(split), "train", 0, 0, "train|validation|test",
     "samples to look at"},
    {"samples", AM_PARAM_INT, AM_AT(samples), "0", 0, INT64_MAX, NULL,
     "at most so many of each task, the first ones; 0: all"},
    {"batch", AM_PARAM_INT, AM_AT(batch), "512", 1, 1 << 24, NULL,
     "samples between two safe points; fixes the rounding"},
    {"micro_batches", AM_PARAM_INT, AM_AT(micro_batches), "8", 1, 1 << 20, NULL,
     "parts of a batch that ranks share; fixes the rounding"},
    {"overwrite", AM_PARAM_BOOL, AM_AT(overwrite), "no", 0, 0, NULL, "replace an existing output"},
    {"fresh", AM_PARAM_BOOL, AM_AT(fresh), "no", 0, 0, NULL,
     "start over where an interrupted job left off"},
    {"save_every", AM_PARAM_REAL, AM_AT(save_every), "-1", -1, 1e9, NULL,
     "seconds between saved sums; -1: as often as costs less than 2 % of the time"},
    {"memory", AM_PARAM_BYTES, AM_AT(memory), "0", 0, INT64_MAX, NULL,
     "what a rank may take: data sets that do not fit are read in pages; 0: any"},
    {0},
};
#undef AM_AT

static int run_all(const am_args *args, int *exit_status)
{
    (void)exit_status;
    return am_stats_run_all(args, args->options);
}

const am_command am_command_stats = {
    .name = "stats",
    .synopsis = "RECIPE --model CKPT -o OUT.h5 [--heads HEADS] [--task NAME] [--fisher empirical] "
                "[--no-grams] [--split train] [--samples N] [--memory SIZE] [--overwrite] "
                "[--fresh] [--set KEY=VALUE]...",
    .summary = "Gram matrices of layer inputs and Fisher information of a model",
    .help = "For every linear layer and convolution of the recipe's model the mean of x x^T over "
            "its inputs x (gram.LAYER) and of x (mean.LAYER), and for every tensor the mean over "
            "samples of the squared gradient of the log-likelihood (fisher.TENSOR), in double "
            "precision: jobs/stats/README.md. merge_method: fisher takes the file as it is. The "
            "same bytes for any number of ranks; memory does not grow with samples. Interrupted, "
            "the same command goes on where it was; finished, it does nothing.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(am_stats_request),
    .takes_set = true,
    .run_all = run_all,
};
