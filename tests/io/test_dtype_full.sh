#!/bin/bash
# 10^8 random patterns of each kind through the conversions (test_dtype takes 10^6).
# SPDX-License-Identifier: BSD-3-Clause
set -eu
AM_DTYPE_PATTERNS=100000000 "$AM_PROGRAMS/test_dtype" '*narrow_f*'
