/* allmerge iterate RECIPE -o RUN/: iterative task arithmetic and what it is compared with.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <stdlib.h>
#include "jobs/command.h"
#include "jobs/training/iterate.h"
#include "jobs/training/room.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/runtime.h"

typedef struct iterate_options {
    char *output;
    bool overwrite, fresh;
    double save_every;
} iterate_options;

static const am_param options[] = {
    {"output", AM_PARAM_STRING, offsetof(iterate_options, output), NULL, 0, 0, NULL,
     "run folder: final.h5, base.h5, heads.h5, rounds/, result.json, events.jsonl"},
    {"overwrite", AM_PARAM_BOOL, offsetof(iterate_options, overwrite), "no", 0, 0, NULL,
     "start over in a folder that holds another run"},
    {"fresh", AM_PARAM_BOOL, offsetof(iterate_options, fresh), "no", 0, 0, NULL,
     "start over where an interrupted run left off; the same as --overwrite"},
    {"save_every", AM_PARAM_REAL, offsetof(iterate_options, save_every), "-1", -1, 1e9, NULL,
     "seconds between saved states of what trains; -1: as often as costs less than 2 % of the "
     "time"},
    {0},
};

/* The table for people, result.json, and the line for programs. */
static int report_all(const am_iterate *it, const am_run_folder *folder)
{
    am_json json = {0};
    char *text = am_table_text(&it->table), final[AM_RUN_PATH];
    int rc = text == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(am_run_folder_file(folder, final, "final.h5"));
    am_json_object(&json, NULL);
    am_json_string(&json, "job", "iterate");
    am_json_int(&json, "seed", it->recipe->seed);
    am_iterate_json(it, &json);
    am_json_end_object(&json);
    AM_KEEP(am_json_finish(&json));
    AM_AGREE(it->suite.comm);
    AM_TRY(am_run_folder_text_all(it->suite.comm, folder, "table.txt", text));
    AM_TRY(am_run_folder_text_all(it->suite.comm, folder, "result.json", json.text));
    am_info("\n%s", text);
    am_info("merged model: %s", final);
    am_result(&json);
cleanup:
    free(text);
    am_json_free(&json);
    return rc;
}

static int run_all(const am_args *args, int *exit_status)
{
    const iterate_options *given = args->options;
    am_train_recipe recipe = {0};
    am_run_folder folder = {.lock = -1};
    am_iterate it = {0};
    char **inputs = NULL;
    bool is_open = false;
    int rc = AM_OK;
    (void)exit_status;
    AM_TRY(
        am_train_recipe_read_all(am_world(), args->positional[0], args->set, args->n_set, &recipe));
    AM_TRY(am_iterate_open_all(am_world(), &recipe, &it));
    is_open = true;
    inputs = am_train_recipe_inputs(&recipe);
    rc = inputs == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(am_world());
    AM_TRY(am_run_folder_open_all(am_world(), given->output, "iterate", recipe.text,
                                  (const char *const *)inputs, given->overwrite || given->fresh,
                                  &folder));
    if (folder.is_finished) {
        am_info("%s is finished: nothing to do (--overwrite starts over)", folder.path);
        AM_TRY(am_run_folder_result_all(am_world(), &folder));
    } else {
        AM_TRY(am_room_check_all(am_world(), &folder, am_room_of_iterate(&it)));
        AM_TRY(am_iterate_run_all(&it, &folder, given->save_every));
        AM_TRY(report_all(&it, &folder));
    }
cleanup:
    if (is_open) {
        am_iterate_close_all(&it);
    }
    am_run_folder_close(&folder);
    am_train_recipe_inputs_free(inputs);
    am_train_recipe_free(&recipe);
    return rc;
}

const am_command am_command_iterate = {
    .name = "iterate",
    .synopsis = "RECIPE -o RUN/ [--overwrite] [--fresh] [--set KEY=VALUE]...",
    .summary = "iterative task arithmetic: finetune every task, merge, repeat; and compare",
    .help = "Trains or loads a base, probes one linear head a task, then compares one-shot merges, "
            "rounds of finetuning and merging, individual models and joint training in one table. "
            "Alphas and stopping rounds are chosen on validation data, the test data is used once. "
            "The results are the same bytes for any number of ranks. A finished run is recognised; "
            "an unfinished one is run again. Recipe keys: jobs/README.md.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(iterate_options),
    .takes_set = true,
    .run_all = run_all,
};
