/* Orders of convergence: the slope of log y over log x by least squares, with its uncertainty.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_THEORY_FIT_H
#define AM_SOLVER_THEORY_FIT_H

typedef struct am_theory_slope {
    int points;       /* that were used */
    double slope;     /* NaN with less than two */
    double error;     /* standard error; NaN with less than three, like the interval */
    double low, high; /* 95 % confidence interval (Student t, points - 2 degrees of freedom) */
} am_theory_slope;

/** Fit n points. Those with y not finite or not above floor are left out: there rounding speaks.
 * x, y, floor [n]. Local, pure. */
am_theory_slope am_theory_fit(int n, const double *x, const double *y, const double *floor);

/** P(|t| <= x) of Student's t with `degrees` >= 1 degrees of freedom, x >= 0 (Abramowitz & Stegun
 * 26.7.3 and 26.7.4). Pure. */
double am_student_inside(int degrees, double x);
/** x with am_student_inside(degrees, x) = probability in (0,1). Pure. */
double am_student_quantile(int degrees, double probability);

#endif
