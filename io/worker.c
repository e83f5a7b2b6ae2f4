/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include "mpi/arena.h"
#include "mpi/error.h"

struct am_worker {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    am_work *first, *last;
    bool stop;
};

static void *work_loop(void *argument)
{
    am_worker *w = argument;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        while (w->first == NULL && !w->stop) {
            pthread_cond_wait(&w->changed, &w->mutex);
        }
        am_work *work = w->first;
        if (work == NULL) {
            break;
        }
        w->first = work->next;
        pthread_mutex_unlock(&w->mutex);
        am_error_clear();
        int rc = work->run(work);
        if (rc != 0) {
            snprintf(work->message, sizeof work->message, "%s", am_error_message());
        }
        pthread_mutex_lock(&w->mutex);
        work->rc = rc;
        work->queued = false;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

int am_worker_start(am_worker **out)
{
    am_worker *w = am_new(1, sizeof *w, "the I/O thread");
    if (w == NULL) {
        return AM_E_NOMEM;
    }
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->changed, NULL);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&w->thread, NULL, work_loop, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed != 0) {
        pthread_cond_destroy(&w->changed);
        pthread_mutex_destroy(&w->mutex);
        free(w);
        return am_fail_errno(AM_E_NOMEM, failed, "cannot start the I/O thread");
    }
    *out = w;
    return 0;
}

void am_worker_submit(am_worker *worker, am_work *work)
{
    pthread_mutex_lock(&worker->mutex);
    work->next = NULL;
    work->queued = true;
    work->rc = 0;
    work->progress = 0;
    if (worker->first == NULL) {
        worker->first = work;
    } else {
        worker->last->next = work;
    }
    worker->last = work;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->mutex);
}

void am_worker_step(am_worker *worker, am_work *work, int64_t progress)
{
    pthread_mutex_lock(&worker->mutex);
    work->progress = progress;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->mutex);
}

void am_worker_wait_for(am_worker *worker, am_work *work, int64_t progress)
{
    pthread_mutex_lock(&worker->mutex);
    while (work->queued && work->progress < progress) {
        pthread_cond_wait(&worker->changed, &worker->mutex);
    }
    pthread_mutex_unlock(&worker->mutex);
}

int am_worker_wait(am_worker *worker, am_work *work)
{
    pthread_mutex_lock(&worker->mutex);
    while (work->queued) {
        pthread_cond_wait(&worker->changed, &worker->mutex);
    }
    pthread_mutex_unlock(&worker->mutex);
    return work->rc == 0 ? 0 : am_fail(work->rc, "%s", work->message);
}

void am_worker_stop(am_worker **worker)
{
    am_worker *w = *worker;
    if (w == NULL) {
        return;
    }
    pthread_mutex_lock(&w->mutex);
    w->stop = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mutex);
    free(w);
    *worker = NULL;
}
