#!/usr/bin/env bash
# merge as a user runs it: paths of the recipe, --set, --seed, overwriting, formats, metadata, one JSON line.
# SPDX-License-Identifier: BSD-3-Clause
set -eu
ckpt() { "$AM_PYTHON" "$AM_SOURCE/tests/support/make_ckpt.py" "$@"; }
fail() {
    echo "$*"
    exit 1
}
merge() { "$AM_BIN" merge "$@" >result.json 2>log.txt; }

mkdir beside
(cd beside && ckpt base.safetensors w=40x3 && ckpt m.safetensors w=40x3:f32:2)
cat >beside/r.yml <<'END'
merge_method: task_arithmetic
base_model: base.safetensors
models: [{model: m.safetensors, parameters: {weight: 0.5, density: 0.9}}]
END

# The recipe's folder is used as a whole, with a line; a file of the same name here is not mixed in.
merge beside/r.yml -o a.safetensors
grep -q 'taken from the folder of the recipe' log.txt || fail "no line about the folder"
grep -q "beside/r.yml:3:.*'density' is not used by task_arithmetic" log.txt || fail "no line about density"
ckpt base.safetensors w=40x3:f32:9
merge beside/r.yml -o b.safetensors --quiet
cmp a.safetensors b.safetensors || fail "a base from here was mixed in"
[ ! -s log.txt ] || fail "--quiet is not quiet"
ckpt m.safetensors w=40x3:f32:8
merge beside/r.yml -o c.safetensors --quiet
cmp -s a.safetensors c.safetensors && fail "files here must go before files there"
rm base.safetensors m.safetensors

# One line of JSON on stdout.
[ "$(wc -l <result.json)" -eq 1 ] || fail "stdout is not one line"
"$AM_PYTHON" -c 'import json; r = json.load(open("result.json")); assert r["parameters"] == 120 and r["written_bytes"] == 480 and r["format"] == "safetensors", r'

# A finished job does nothing; outputs of another one are kept, unless told otherwise; the other forms
# hold the same values.
before=$(stat -c %i.%Y a.safetensors)
merge beside/r.yml -o a.safetensors || fail "a finished job was not recognised"
[ "$(stat -c %i.%Y a.safetensors)" = "$before" ] || fail "a finished output was written again"
merge beside/r.yml -o a.safetensors --set dtype=float16 && fail "an output was replaced"
grep -q 'a.safetensors' log.txt || fail "no message about the output"
merge beside/r.yml -o a.safetensors --overwrite
cmp a.safetensors b.safetensors || fail "overwriting changed the bytes"
merge beside/r.yml -o a.h5
merge beside/r.yml -o a/
"$AM_BIN" diff a.safetensors a.h5 2>/dev/null || fail "HDF5 differs"
"$AM_BIN" diff a.safetensors a 2>/dev/null || fail "the folder differs"

# Inputs of any form merge to the same values.
"$AM_BIN" convert beside/m.safetensors m.h5 >/dev/null 2>&1
"$AM_BIN" convert beside/base.safetensors base/ >/dev/null 2>&1
merge beside/r.yml -o forms.safetensors --set models.0.model=m.h5 --set base_model=base
"$AM_BIN" diff a.safetensors forms.safetensors 2>/dev/null || fail "inputs of other forms merge differently"

# --set is like writing it in the recipe, and is recorded; a recipe may come by standard input.
sed 's/0.5/0.25/' beside/r.yml >beside/quarter.yml
merge beside/quarter.yml -o quarter.safetensors
merge beside/r.yml -o set.safetensors --set models.0.parameters.weight=0.25
cmp quarter.safetensors set.safetensors || fail "--set differs from the recipe"
(cd beside && "$AM_BIN" merge - -o ../stdin.safetensors <quarter.yml >/dev/null 2>&1)
cmp quarter.safetensors stdin.safetensors || fail "standard input differs from the file"
merge beside/r.yml -o seed.safetensors --seed 7
grep -aq '\\"seed\\":7' seed.safetensors || fail "the seed is not in the metadata"

# Weight 0 gives the base back, in the dtype that the recipe wants.
merge beside/r.yml -o zero.safetensors --set models.0.parameters.weight=0
"$AM_BIN" diff zero.safetensors beside/base.safetensors 2>/dev/null || fail "weight 0 is not the base"
merge beside/r.yml -o half.safetensors --set dtype=float32 --set out_dtype=float16
"$AM_BIN" inspect half.safetensors --json 2>/dev/null | grep -qi 'f16\|float16' || fail "out_dtype is not F16"

# A stop request ends it at a safe point with 75 and leaves nothing.
ckpt beside/base.safetensors w=3000x2000 && ckpt beside/m.safetensors w=3000x2000:f32:2
"$AM_BIN" merge beside/r.yml -o stopped.safetensors --block 64 >/dev/null 2>log.txt &
pid=$!
for _ in $(seq 100); do
    [ ! -e stopped.safetensors.partial ] || break
    sleep 0.05
done
kill -TERM $pid
code=0
wait $pid || code=$?
[ "$code" -eq 75 ] || fail "stopped with $code"
[ "$(ls -d stopped* 2>/dev/null)" = "" ] || fail "left behind: $(ls -d stopped*)"
