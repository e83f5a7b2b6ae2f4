/* Progress of a loop. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/progress.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "mpi/log.h"
#include "mpi/param.h"
#include "mpi/clock.h"
#include "mpi/watchdog.h"
#include "mpi/world.h"

enum { BAR_CELLS = 24 };
static const double redraw_seconds = 0.1, batch_seconds = 30;

static bool is_shown(void)
{
    return am_world_rank() == 0 && am_log_get_level() >= AM_LOG_INFO;
}

static void put_amount(char *text, size_t size, const char *unit, double amount)
{
    if (strcmp(unit, "B") == 0) {
        (void)snprintf(text, size, "%s", am_format_bytes((int64_t)amount));
    } else {
        (void)snprintf(text, size, amount < 100 ? "%.3g %s" : "%.0f %s", amount, unit);
    }
}

static void put_line(const am_progress *p, double now, bool bar, char *text, size_t size)
{
    char cells[BAR_CELLS + 1] = "", done[48], total[48], rate[48];
    double seconds = now - p->started,
           share = p->total > 0 ? (double)p->done / (double)p->total : 1;
    double speed = seconds > 0 ? (double)p->done / seconds : 0;
    for (int i = 0; i < BAR_CELLS; i++) {
        cells[i] = i < (int)(share * BAR_CELLS) ? '#' : '.';
    }
    put_amount(done, sizeof done, p->unit, (double)p->done);
    put_amount(total, sizeof total, p->unit, (double)p->total);
    put_amount(rate, sizeof rate, p->unit, speed);
    int at = snprintf(text, size, "%s %s%s%s %3.0f %%  %s of %s  %s/s", p->title, bar ? "[" : "",
                      bar ? cells : "", bar ? "]" : ":", 100 * share, done, total, rate);
    if (speed > 0 && at > 0 && (size_t)at < size) {
        int64_t left = (int64_t)((double)(p->total - p->done) / speed + 0.5);
        (void)snprintf(text + at, size - (size_t)at, "  %" PRId64 ":%02" PRId64 " left", left / 60,
                       left % 60);
    }
}

void am_progress_start(am_progress *p, const char *title, int64_t total, const char *unit)
{
    double now = am_seconds();
    *p =
        (am_progress){.title = title, .unit = unit, .total = total, .started = now, .printed = now};
}

void am_progress_add(am_progress *p, int64_t amount)
{
    p->done += amount;
    am_alive(NULL);
    if (!is_shown()) {
        return;
    }
    bool is_terminal = am_log_is_terminal();
    double now = am_seconds();
    if (now - p->printed < (is_terminal ? redraw_seconds : batch_seconds)) {
        return;
    }
    char text[256];
    put_line(p, now, is_terminal, text, sizeof text);
    p->printed = now;
    if (is_terminal) {
        am_log_status(text);
    } else {
        am_info("%s", text);
    }
}

/* A short loop leaves no line in a batch log. */
void am_progress_end(am_progress *p)
{
    if (!is_shown()) {
        return;
    }
    double seconds = am_seconds() - p->started;
    if (!am_log_is_terminal() && seconds < batch_seconds) {
        return;
    }
    char done[48];
    put_amount(done, sizeof done, p->unit, (double)p->done);
    am_info("%s: %s in %.1f s", p->title, done, seconds);
}
