#!/bin/bash
# Runs one script test in an empty folder $AM_TMP, which is kept when the test fails.
# usage: script.sh SCRIPT [ARGUMENT]...
set -eu
script=$1
shift
rm -rf "$AM_TMP"
mkdir -p "$AM_TMP"
cd "$AM_TMP"
status=0
case $script in
*.py) "$AM_PYTHON" "$script" "$@" || status=$? ;;
*) bash "$script" "$@" || status=$? ;;
esac
cd /
if [ $status = 0 ]; then
    rm -rf "$AM_TMP"
elif [ $status != 77 ]; then
    echo "exit code $status; files are in $AM_TMP" >&2
fi
exit $status
