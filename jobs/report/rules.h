/* What members of result.json and of events must be. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_REPORT_RULES_H
#define AM_JOBS_REPORT_RULES_H

#include <jansson.h>

typedef enum am_rule_kind {
    AM_RULE_NUMBER, /* or null */
    AM_RULE_TEXT,   /* or null */
    AM_RULE_NAME,   /* a text, required */
    AM_RULE_LIST,   /* or null */
    AM_RULE_OBJECT, /* or null */
    AM_RULE_ROWS,   /* a list, required */
    AM_RULE_SECTION /* an object, required */
} am_rule_kind;

/* path: member names; [] goes on with every item of a list: "rows[].task_accuracy[]". Nothing is
 * asked of what is not there, unless it is required of an object that is there. */
typedef struct am_rule {
    const char *path;
    am_rule_kind kind;
} am_rule; /* a list of rules ends with a NULL path */

/** Errors: AM_E_DATA naming `where` and the member, as "rows[3].alpha". */
int am_rules_check(const am_rule *rules, const json_t *root, const char *where);

#endif
