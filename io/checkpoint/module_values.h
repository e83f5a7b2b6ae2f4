/* rank_pattern and alpha_pattern of an adapter's configuration: numbers of modules, by what their
 * names end with. Local functions. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_CHECKPOINT_MODULE_VALUES_H
#define AM_IO_CHECKPOINT_MODULE_VALUES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct am_module_values {
    int64_t n;
    struct am_module_value *item; /* [n] owned, in the order of the file */
} am_module_values;

/** Read one of them, from the object `map` (NULL, null: none). PEFT matches its keys as regular
 * expressions with the end of a module's name, at a dot; those that POSIX reads otherwise are
 * refused. path, what: for messages. map: borrowed for the life of the values. Errors: AM_E_DATA
 * not an object, not a number, a key that cannot be read; AM_E_NOMEM. */
int am_module_values_read(const char *path, const char *what, json_t *map, am_module_values *out);
/** The number of the first key that matches, else `fallback`. Plain keys cost a comparison. */
double am_module_value_of(const am_module_values *values, const char *module, double fallback);
void am_module_values_free(am_module_values *values); /* accepts a zeroed one */
/** Whether nothing in a key but its dots means another character than itself. */
bool am_module_key_is_plain(const char *key);

#endif
