/* Looking up merge methods. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "solver/merge/method.h"

const am_method *am_method_find(const char *name)
{
    for (int i = 0; am_method_table[i] != NULL; i++) {
        if (strcmp(am_method_table[i]->name, name) == 0) {
            return am_method_table[i];
        }
    }
    return NULL;
}
