/* Learning rates over a run. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/rate.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* `done` in [0, 1]: share of the steps after the warm-up that are behind. */
typedef struct am_rate_schedule {
    const char *name;
    double (*factor)(const am_rate *rate, double done, int64_t epoch);
} am_rate_schedule;

static double constant(const am_rate *rate, double done, int64_t epoch)
{
    (void)rate;
    (void)done;
    (void)epoch;
    return 1;
}

/* Loshchilov & Hutter, SGDR, ICLR 2017, equation 5, without restarts. */
static double cosine(const am_rate *rate, double done, int64_t epoch)
{
    (void)epoch;
    const double pi = 3.141592653589793;
    return rate->floor + (1 - rate->floor) * (1 + cos(pi * done)) / 2;
}

static double linear(const am_rate *rate, double done, int64_t epoch)
{
    (void)epoch;
    return rate->floor + (1 - rate->floor) * (1 - done);
}

static double step(const am_rate *rate, double done, int64_t epoch)
{
    (void)done;
    return rate->every > 0 ? pow(rate->factor, (double)(epoch / rate->every)) : 1;
}

static const am_rate_schedule schedules[] = {
    {"constant", constant}, {"cosine", cosine}, {"linear", linear}, {"step", step}, {NULL, NULL}};

int am_rate_find(const char *name)
{
    for (int i = 0; schedules[i].name != NULL; i++) {
        if (strcmp(schedules[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static const am_param params[] = {
    {"lr_schedule", AM_PARAM_CHOICE, offsetof(am_rate, schedule), "constant", 0, 0,
     "constant|cosine|linear|step", "course of the learning rate"},
    {"lr_warmup", AM_PARAM_INT, offsetof(am_rate, warmup), "0", 0, 1e12, NULL,
     "steps over which the rate grows linearly from 0"},
    {"lr_floor", AM_PARAM_REAL, offsetof(am_rate, floor), "0", 0, 1, NULL,
     "cosine, linear: share of lr at the end of the run"},
    {"lr_every", AM_PARAM_INT, offsetof(am_rate, every), "0", 0, 1e6, NULL,
     "step: epochs between two steps, 0: never"},
    {"lr_factor", AM_PARAM_REAL, offsetof(am_rate, factor), "0.1", 1e-6, 1, NULL,
     "step: factor of each step"},
    {"lr_decay", AM_PARAM_REAL, offsetof(am_rate, decay), "1", 1e-6, 1, NULL,
     "factor on the learning rate after every epoch; epochs count on over the rounds of iterate"},
    {"lr_epochs", AM_PARAM_INT, offsetof(am_rate, epochs), "0", 0, 1e6, NULL,
     "cosine, linear: epochs of the whole run, 0: as many as the job trains"},
    {0},
};

const am_param *am_rate_params(void)
{
    return params;
}

double am_rate_at(const am_rate *rate, double lr, int64_t epoch, int64_t step, int64_t steps,
                  int64_t epochs)
{
    const double at = (double)epoch * (double)steps + (double)step, warmup = (double)rate->warmup;
    const double after =
        (double)(rate->epochs > 0 ? rate->epochs : epochs) * (double)steps - warmup;
    double done = after > 0 ? (at - warmup) / after : 1;
    done = done < 0 ? 0 : done > 1 ? 1 : done;
    if (rate->decay != 0) {
        lr *= pow(rate->decay, (double)epoch);
    }
    lr *= schedules[rate->schedule].factor(rate, done, epoch);
    return at < warmup ? lr * (at + 1) / warmup : lr;
}
