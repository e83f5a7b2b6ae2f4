/* See adapt.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/suite/adapt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/adapter.h"
#include "mpi/agree.h"
#include "mpi/arena.h"

static bool has_adapters(const am_suite *suite)
{
    return suite->adapters.net.n > 0;
}

const am_net *am_adapt_net(const am_suite *suite)
{
    return has_adapters(suite) ? &suite->adapters.net : &suite->net;
}

/* The part of a trunk with adapters that training moves: these. */
static int part_of(const am_suite *suite, am_param_layout *out)
{
    am_param_layout trunk = {0};
    int rc = am_net_trunk_layout(&suite->adapters.net, suite->ops->dtype, &trunk);
    AM_KEEP(am_param_layout_part(&trunk, out));
    am_param_layout_free(&trunk);
    return rc;
}

int am_adapt_open(am_suite *suite, const am_lora_options *lora)
{
    am_param_layout moved = {0};
    if (lora->r == 0) {
        return AM_OK;
    }
    suite->adapters.lora = lora;
    int rc = am_lora_adapt(&suite->net, lora, &suite->adapters.net);
    suite->adapters.block = am_new((int64_t)suite->n + 1, sizeof(void *), "adapters");
    AM_KEEP(suite->adapters.block == NULL ? AM_E_NOMEM : AM_OK);
    AM_KEEP(part_of(suite, &moved));
    if (rc == AM_OK) {
        am_param_layout_free(&suite->moved);
        suite->moved = moved;
    }
    return rc;
}

/* ---- a call ---- */

/* The weights of `whole` and the adapters that calls with these options begin with. */
static int fill(const am_suite *suite, const am_train_options *options, const void *whole,
                void **trunk)
{
    char key[128];
    am_param_layout part = {0};
    if (*trunk == NULL) {
        *trunk = am_new(suite->adapters.net.trunk.n, (size_t)am_suite_real_bytes(suite),
                        "a trunk with adapters");
    }
    int rc = *trunk == NULL ? AM_E_NOMEM : part_of(suite, &part);
    if (rc == AM_OK) {
        int64_t *end_to_end = part.offset;
        part.offset = part.home; /* values are made where the adapters lie in the trunk */
        am_lora_unfold(&suite->adapters.net, &suite->trunk, whole, *trunk);
        snprintf(key, sizeof key, "lora %s %" PRId64, options->purpose, options->round);
        rc = suite->ops->init(&part, options->seed, key, *trunk);
        part.offset = end_to_end;
    }
    am_param_layout_free(&part);
    return rc;
}

int am_adapt_begin(am_suite *suite, int slot, void *whole, const am_train_options *options,
                   void **trunk)
{
    am_adapters *adapters = &suite->adapters;
    *trunk = whole;
    if (!has_adapters(suite)) {
        return AM_OK;
    }
    int rc = fill(suite, options, whole, &adapters->block[slot]);
    if (suite->net.anchor != NULL) {
        AM_KEEP(fill(suite, options, suite->net.anchor, &adapters->anchor));
        adapters->net.anchor = adapters->anchor;
    }
    *trunk = adapters->block[slot];
    return rc;
}

/* A linearised network depends on B alone, along A as it was at the anchor. */
static int take_anchors(const am_suite *suite, void *trunk)
{
    const am_net *net = &suite->adapters.net;
    const size_t bytes = (size_t)am_suite_real_bytes(suite);
    am_lora_pair *pair = am_new(net->n, sizeof *pair, "adapters");
    const int n = pair != NULL ? am_lora_pairs(net, pair) : 0;
    for (int i = 0; i < n; i++) {
        const size_t at = (size_t)net->trunk.offset[pair[i].a] * bytes;
        memcpy((char *)trunk + at, (const char *)suite->adapters.anchor + at,
               (size_t)(pair[i].rank * pair[i].cols) * bytes);
    }
    free(pair);
    return pair != NULL ? AM_OK : AM_E_NOMEM;
}

int am_adapt_end(const am_suite *suite, void *trunk, void *whole)
{
    int rc = AM_OK;
    if (has_adapters(suite)) {
        rc = suite->adapters.net.anchor != NULL ? take_anchors(suite, trunk) : AM_OK;
        AM_KEEP(am_lora_fold(&suite->adapters.net, &suite->trunk, trunk, whole));
    }
    return rc;
}

/* ---- the adapter as a folder ---- */

/* "base_model.model.MODULE.lora_A.weight"; B of a convolution is [out, r, 1, 1]. */
static int factor_table(const am_suite *suite, const am_lora_pair *pair, int n,
                        am_tensor_table *out, int64_t **offset)
{
    const am_param_layout *trunk = &suite->adapters.net.trunk;
    char name[AM_MAX_NAME];
    int rc = AM_OK;
    *offset = am_new(2 * (int64_t)n + 1, sizeof **offset, "adapters");
    for (int pass = 0; pass < 2; pass++) { /* first the names, then their places */
        for (int i = 0; rc == AM_OK && i < 2 * n; i++) {
            const am_lora_pair *p = &pair[i / 2];
            const int64_t k = i % 2 == 0 ? p->a : p->b;
            const am_tensor *t = &trunk->tensors.t[k];
            int64_t shape[AM_LAYER_PARAM_DIMS] = {t->shape[0], t->shape[1], 1, 1};
            const int dims = trunk->tensors.t[p->a].ndim;
            for (int d = 2; d < t->ndim; d++) {
                shape[d] = t->shape[d];
            }
            snprintf(name, sizeof name, "base_model.model.%s", t->name);
            if (pass == 0) {
                rc = am_tensor_table_add(out, name, suite->ops->dtype, dims, shape);
            } else {
                (*offset)[am_tensor_table_find(out, name)] = trunk->offset[k];
            }
        }
        if (pass == 0) {
            AM_KEEP(am_tensor_table_finish(out));
            AM_KEEP(*offset == NULL ? AM_E_NOMEM : AM_OK);
        }
    }
    return rc;
}

int am_adapt_save_all(const am_suite *suite, const am_run_folder *folder, const void *trunk)
{
    am_json json = {0};
    am_meta meta = {0};
    am_tensor_table table = {0};
    int64_t *offset = NULL;
    char path[AM_RUN_PATH];
    am_lora_pair *pair = NULL;
    int rc = AM_OK;
    if (!has_adapters(suite)) {
        return AM_OK;
    }
    pair = am_new(suite->adapters.net.n, sizeof *pair, "adapters");
    const int n = pair != NULL ? am_lora_pairs(&suite->adapters.net, pair) : 0;
    const am_lora_options *o = suite->adapters.lora;
    const am_adapter_config config = {
        .r = o->r, .alpha = o->lora_alpha, .dropout = o->lora_dropout, .is_rs = o->use_rslora};
    rc = pair == NULL ? AM_E_NOMEM : AM_OK;
    am_adapter_config_begin(&config, &json);
    for (int i = 0; i < n; i++) {
        am_adapter_config_add(suite->adapters.net.trunk.tensors.t[pair[i].w].name, &json);
    }
    AM_KEEP(am_adapter_config_end(&json));
    AM_KEEP(factor_table(suite, pair, n, &table, &offset));
    AM_KEEP(am_meta_set(&meta, "format", "pt"));
    AM_KEEP(am_run_folder_file(folder, path, "adapter/" AM_ADAPTER_FACTORS));
    AM_AGREE(suite->comm);
    AM_TRY(am_run_folder_sub_all(suite->comm, folder, "adapter"));
    const am_ckpt_options options = {
        .overwrite = true, .meta = &meta, .beside = AM_ADAPTER_CONFIG, .beside_text = json.text};
    AM_TRY(am_ckpt_save_all(suite->comm, path, &table, offset, trunk, &options));
cleanup:
    am_json_free(&json);
    am_meta_free(&meta);
    am_tensor_table_free(&table);
    free(offset);
    free(pair);
    return rc;
}
