/* Fitted slopes: see fit.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/theory/fit.h"

#include <math.h>
#include <stdbool.h>

/* With theta = atan(x / sqrt(nu)), s = sin theta, c = cos theta:
 *   odd   2/pi (theta + s (c + 2/3 c^3 + ... + (2 4 .. nu-3)/(3 5 .. nu-2) c^(nu-2)))
 *   even  s (1 + 1/2 c^2 + 1 3/(2 4) c^4 + ... + (1 3 .. nu-3)/(2 4 .. nu-2) c^(nu-2)) */
double am_student_inside(int degrees, double x)
{
    const double theta = atan(x / sqrt((double)degrees)), s = sin(theta), c = cos(theta);
    const bool is_odd = degrees % 2 == 1;
    double term = is_odd ? c : 1, sum = degrees == 1 ? 0 : term;
    for (int i = is_odd ? 3 : 2; i <= degrees - 2; i += 2) {
        term *= (double)(i - 1) / i * c * c;
        sum += term;
    }
    return is_odd ? 0.63661977236758134 * (theta + s * sum) : s * sum;
}

double am_student_quantile(int degrees, double probability)
{
    double low = 0, high = 1;
    while (am_student_inside(degrees, high) < probability) {
        high *= 2;
    }
    for (int i = 0; i < 200; i++) {
        const double middle = low + (high - low) / 2;
        if (am_student_inside(degrees, middle) < probability) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low + (high - low) / 2;
}

am_theory_slope am_theory_fit(int n, const double *x, const double *y, const double *floor)
{
    am_theory_slope out = {.slope = NAN, .error = NAN, .low = NAN, .high = NAN};
    double mean_x = 0, mean_y = 0, xx = 0, xy = 0, rest = 0;
    for (int i = 0; i < n; i++) {
        if (isfinite(y[i]) && y[i] > floor[i]) {
            out.points++;
            mean_x += log(x[i]);
            mean_y += log(y[i]);
        }
    }
    mean_x /= out.points;
    mean_y /= out.points;
    for (int i = 0; i < n; i++) {
        if (isfinite(y[i]) && y[i] > floor[i]) {
            const double dx = log(x[i]) - mean_x;
            xx += dx * dx;
            xy += dx * (log(y[i]) - mean_y);
        }
    }
    if (out.points < 2 || !(xx > 0)) {
        return out;
    }
    out.slope = xy / xx;
    for (int i = 0; i < n; i++) {
        if (isfinite(y[i]) && y[i] > floor[i]) {
            const double off = log(y[i]) - mean_y - out.slope * (log(x[i]) - mean_x);
            rest += off * off;
        }
    }
    if (out.points > 2) {
        const int degrees = out.points - 2;
        out.error = sqrt(rest / degrees / xx);
        const double half = am_student_quantile(degrees, 0.95) * out.error;
        out.low = out.slope - half;
        out.high = out.slope + half;
    }
    return out;
}
