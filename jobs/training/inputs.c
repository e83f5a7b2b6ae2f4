/* What a training job reads: see recipe.h. SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include "io/file.h"
#include "jobs/training/recipe.h"
#include "mpi/arena.h"

enum { OTHERS = 3 }; /* pretraining set, base, heads */

char **am_train_recipe_inputs(const am_train_recipe *recipe)
{
    const char *checkpoint[] = {recipe->base_checkpoint, recipe->heads_checkpoint};
    bool is_complete = true;
    int n = 0;
    char **path = am_new(recipe->n_tasks + OTHERS + 1, sizeof *path, "paths");
    if (path == NULL) {
        return NULL;
    }
    for (int i = 0; i <= recipe->n_tasks; i++) {
        const char *task = i < recipe->n_tasks ? recipe->task[i] : recipe->base_task;
        if (task != NULL && is_complete) {
            path[n] = am_text("%s/%s.h5", recipe->folder, task);
            is_complete = path[n++] != NULL;
        }
    }
    for (int i = 0; i < 2; i++) {
        if (checkpoint[i] != NULL && is_complete) {
            path[n] = am_text("%s", checkpoint[i]);
            is_complete = path[n++] != NULL;
        }
    }
    if (!is_complete) {
        am_train_recipe_inputs_free(path);
        path = NULL;
    }
    return path;
}

void am_train_recipe_inputs_free(char **inputs)
{
    for (int i = 0; inputs != NULL && inputs[i] != NULL; i++) {
        free(inputs[i]);
    }
    free(inputs);
}
