/* The transformer block that presets share. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/blocks.h"

#include <stdio.h>
#include <string.h>
#include "mpi/error.h"

int am_block_dropout(am_net *net, const char *name, int v, double rate)
{
    return rate > 0 ? am_net_add(net, name, "dropout", v, "rate=%.17g", rate) : v;
}

/* "blocks.N.what" */
static const char *am_block_name(char *text, int64_t number, const char *what)
{
    snprintf(text, AM_NET_NAME, "blocks.%lld.%s", (long long)number, what);
    return text;
}

static int am_block_norm(am_net *net, int64_t number, const char *what, int v,
                         const am_block_options *o)
{
    char name[AM_NET_NAME], layer[64];
    const char *rest = strchr(o->norm, ' ');
    const int length = rest != NULL ? (int)(rest - o->norm) : (int)strlen(o->norm);
    snprintf(layer, sizeof layer, "%.*s", length, o->norm);
    return am_net_add(net, am_block_name(name, number, what), layer, v, "%s",
                      rest != NULL ? rest + 1 : "");
}

static int am_block_linear(am_net *net, int64_t number, const char *what, int v, int64_t out,
                           const char *activation, const am_block_options *o)
{
    char name[AM_NET_NAME];
    return am_net_add(net, am_block_name(name, number, what), "linear", v,
                      "out=%lld bias=%s sigma=%.17g activation=%s", (long long)out,
                      o->bias ? "yes" : "no", o->sigma, activation);
}

static int am_block_residual(am_net *net, int64_t number, const char *drop, const char *what,
                             int trunk, int branch, const am_block_options *o)
{
    char name[AM_NET_NAME];
    branch = am_block_dropout(net, am_block_name(name, number, drop), branch, o->dropout);
    return am_net_add2(net, am_block_name(name, number, what), "add", trunk, branch, "%s", "");
}

int am_block_add(am_net *net, int64_t number, int v, const am_block_options *o)
{
    char name[AM_NET_NAME];
    const int64_t qkv = o->features / o->heads * (o->heads + 2 * o->groups);
    am_net_cut(net);
    int b = am_block_norm(net, number, "norm1", v, o);
    b = am_block_linear(net, number, "qkv", b, qkv, "none", o);
    b = am_net_add(net, am_block_name(name, number, "attention"), "attention", b,
                   "heads=%lld groups=%lld causal=%s rotary=%.17g", (long long)o->heads,
                   (long long)o->groups, o->is_causal ? "yes" : "no", o->rotary);
    b = am_block_linear(net, number, "proj", b, o->features, "none", o);
    v = am_block_residual(net, number, "drop1", "add1", v, b, o);
    b = am_block_norm(net, number, "norm2", v, o);
    if (o->is_gated) {
        b = am_block_linear(net, number, "gate_up", b, 2 * o->hidden, "none", o);
        b = am_net_add(net, am_block_name(name, number, "gated"), "gated", b, "%s", "");
    } else {
        b = am_block_linear(net, number, "up", b, o->hidden, o->activation, o);
    }
    b = am_block_linear(net, number, "down", b, o->features, "none", o);
    return am_block_residual(net, number, "drop2", "add2", v, b, o);
}

int am_block_check(const char *preset, const am_block_options *o)
{
    return o->features % o->heads == 0 && o->heads % o->groups == 0
               ? 0
               : am_fail(AM_E_RECIPE,
                         "preset %s: features (%lld) must be a multiple of heads (%lld), and these "
                         "of groups (%lld)",
                         preset, (long long)o->features, (long long)o->heads, (long long)o->groups);
}

int am_block_stack(am_net *net, int64_t depth, int v, const am_block_options *o)
{
    v = am_block_dropout(net, "dropout", v, o->dropout);
    for (int64_t l = 0; l < depth; l++) {
        v = am_block_add(net, l, v, o);
    }
    return v;
}
