/* Members of JSON objects: see run.h. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "jobs/report/page.h"
#include "mpi/arena.h"

double am_member_number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

const char *am_member_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

double am_item_number(const json_t *list, size_t i)
{
    const json_t *value = json_array_get(list, i);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

bool am_is_text(const json_t *object, const char *key, const char *text)
{
    const char *own = am_member_text(object, key);
    return own != NULL && text != NULL && strcmp(own, text) == 0;
}

const json_t *am_report_member(const am_report *report, const char *key)
{
    return json_object_get(report->all, key);
}

const char **am_report_tasks(const am_report *report, int *n)
{
    const json_t *list = am_report_member(report, "tasks");
    if (!json_is_array(list)) {
        list = json_object_get(json_object_get(report->run[0].recipe, "data"), "tasks");
    }
    *n = (int)json_array_size(list);
    const char **names = am_new(*n + 1, sizeof *names, "names of tasks");
    for (int i = 0; names != NULL && i < *n; i++) {
        names[i] = json_string_value(json_array_get(list, (size_t)i));
    }
    return names;
}

const am_report_page *am_report_page_of(const char *experiment, const char *job)
{
    const am_report_page *found = NULL;
    for (int i = 0; am_report_page_table[i] != NULL; i++) {
        const am_report_page *page = am_report_page_table[i];
        if (strcmp(page->job, job) == 0) {
            if (experiment != NULL && strcmp(page->name, experiment) == 0) {
                return page;
            }
            found = strcmp(page->name, job) == 0 ? page : found;
        }
    }
    return found;
}
