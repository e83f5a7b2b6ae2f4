/* How |C| lies to its bounds: see ratios.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/theory/ratios.h"

#include <math.h>

/* The forms of the bound. */
enum { DERIVED, PRINTED, NET_DERIVED, NET_PRINTED, FORMS };

/* |C| / bound over some rows; what has no bound does not count. */
typedef struct ratio {
    double least, most; /* NaN: none was measured */
    int rows, broken;   /* rows with the bound; of these, |C| is larger */
} ratio;

typedef struct ratios {
    ratio of[FORMS];
} ratios;

static void take(ratio *r, double c, double bound)
{
    if (bound > 0) {
        r->least = fmin(r->least, c / bound);
        r->most = fmax(r->most, c / bound);
        r->rows++;
        r->broken += c > bound;
    }
}

/* Of the j-th k; j < 0: of all. */
static ratios ratios_of(const am_theory *theory, int j)
{
    const am_theory_section *section = &theory->section;
    const int64_t n =
        (int64_t)section->n_tasks * section->n_etas * section->n_alphas * section->n_k;
    ratios out;
    for (int f = 0; f < FORMS; f++) {
        out.of[f] = (ratio){.least = NAN, .most = NAN};
    }
    for (int64_t r = 0; r < n; r++) {
        const am_theory_row *row = &theory->row[r];
        if (j < 0 || r % section->n_k == j) {
            take(&out.of[DERIVED], row->c, row->derived);
            take(&out.of[PRINTED], row->c, row->printed);
            take(&out.of[NET_DERIVED], row->c, row->net_derived);
            take(&out.of[NET_PRINTED], row->c, row->net_printed);
        }
    }
    return out;
}

static void json_by_k(const am_theory *theory, am_json *json)
{
    static const char *const name[FORMS] = {"derived", "printed", "network_derived",
                                            "network_printed"};
    const am_theory_section *section = &theory->section;
    am_json_array(json, "bounds_by_k");
    for (int j = 0; j < section->n_k; j++) {
        const ratios bounds = ratios_of(theory, j);
        if (section->k[j] < 2) {
            continue; /* no gap, no bound */
        }
        am_json_object(json, NULL);
        am_json_int(json, "k", section->k[j]);
        for (int f = 0; f < FORMS; f++) {
            am_json_object(json, name[f]);
            am_json_real(json, "least", bounds.of[f].least);
            am_json_real(json, "most", bounds.of[f].most);
            am_json_int(json, "rows", bounds.of[f].rows);
            am_json_int(json, "broken", bounds.of[f].broken);
            am_json_end_object(json);
        }
        am_json_end_object(json);
    }
    am_json_end_array(json);
}

void am_theory_ratios_json(const am_theory *theory, am_json *json)
{
    const ratios all = ratios_of(theory, -1);
    am_json_object(json, "bounds");
    am_json_real(json, "most_of_derived", all.of[DERIVED].most);
    am_json_real(json, "most_of_network", all.of[NET_DERIVED].most);
    am_json_int(json, "derived_broken", all.of[DERIVED].broken);
    am_json_int(json, "printed_broken", all.of[PRINTED].broken);
    am_json_int(json, "measured", all.of[DERIVED].rows);
    am_json_end_object(json);
    json_by_k(theory, json);
}

static void write_ratio(const ratio *r, FILE *out)
{
    if (r->rows > 0) {
        fprintf(out, " %9.2e %9.2e %4d of %-4d", r->least, r->most, r->broken, r->rows);
    } else {
        fprintf(out, " %9s %9s %12s", "-", "-", "-");
    }
}

void am_theory_ratios_write(const am_theory *theory, FILE *out)
{
    const am_theory_section *section = &theory->section;
    const ratios all = ratios_of(theory, -1);
    if (all.of[DERIVED].rows > 0) {
        fprintf(out,
                "\n|C| comes up to %.3g of the derived bound, breaks it in %d of %d rows and the "
                "printed one in %d\n",
                all.of[DERIVED].most, all.of[DERIVED].broken, all.of[DERIVED].rows,
                all.of[PRINTED].broken);
    }
    if (all.of[NET_DERIVED].rows > 0) {
        fprintf(out, "|C| comes up to %.3g of the derived bound with the network's constants\n",
                all.of[NET_DERIVED].most);
    }
    if (all.of[DERIVED].rows + all.of[NET_DERIVED].rows == 0) {
        return;
    }
    fprintf(out,
            "\n|C| over its bounds by k: the least, the most, rows in which it is broken\n"
            "%4s %32s  %32s  %32s  %32s\n",
            "k", "derived", "printed", "derived, network", "printed, network");
    for (int j = 0; j < section->n_k; j++) {
        const ratios bounds = ratios_of(theory, j);
        if (section->k[j] < 2) {
            continue;
        }
        fprintf(out, "%4lld", (long long)section->k[j]);
        for (int f = 0; f < FORMS; f++) {
            write_ratio(&bounds.of[f], out);
        }
        fprintf(out, "\n");
    }
}
