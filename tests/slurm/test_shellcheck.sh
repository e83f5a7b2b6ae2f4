#!/usr/bin/env bash
# Every shell script of the tree, by its first line, is clean under shellcheck.
# SPDX-License-Identifier: BSD-3-Clause
set -euo pipefail
command -v shellcheck >/dev/null || { echo 'skipped: no shellcheck'; exit 77; }
cd "$AM_SOURCE"
mapfile -t scripts < <(git ls-files -z 2>/dev/null | xargs -0 -r grep -lE -m1 -d skip '^#!.*[/ ](ba)?sh$' |
    while read -r file; do if head -n 1 "$file" | grep -q '^#!'; then echo "$file"; fi; done)
if [ ${#scripts[@]} -lt 5 ]; then echo "found only ${#scripts[@]} scripts"; exit 1; fi
shellcheck -S warning "${scripts[@]}"
echo "${#scripts[@]} scripts"
