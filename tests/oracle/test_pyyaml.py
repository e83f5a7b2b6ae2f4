#!/usr/bin/env python3
"""YAML scalars and documents against the installed PyYAML, and damaged documents against crashes.

Where allmerge is stricter on purpose (duplicate keys, depth, tags, huge expansions) it must say so.
SPDX-License-Identifier: BSD-3-Clause
"""
import itertools
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

try:
    import yaml
except ModuleNotFoundError:
    print("skipped: python3-yaml is not installed")
    sys.exit(77)

PROGRAM = Path(os.environ["AM_PROGRAMS"]) / "yaml_json"
SCALARS = """yes no On off TRUE True tRue null ~ Null nULL 0 007 017 0o17 018 0x1F 0xg 0b101 0b12 1_000 _1
1__0 +5 -5 +-5 1:30 1:60 1:30:59 0:30 -1:30 1:2.5 1:30. 1e-3 1e3 1.5e-3 1.5e3 1.5e+3 1. .5 -.5 +.5 . ._5
.5_ 1._5 1_0.5 .inf -.inf +.Inf .nan .NaN .NAn -.nan 0.1 00.5 12345678901234567890 9223372036854775807
-9223372036854775808 0x_1 0_ 0_7 08 2001-01-01 a:b 1,000 0x-1 -0x1F -017 1.2.3 1.5E-3 e3 1e 0.1_2e-1
y n Y 190:20:30.15 685230.15 6.8523015e+5 02472256 0x_0A_74_AE 0b1010_0111_0100_1010_1110""".split()
DOCUMENTS = ["", "a: [1, {b: c}]\nd:\n- x\n", "a: &x [1,2]\nb: *x\n", "a: |\n  x\n  y\nb: >\n  p\n  q\n",
             "d: &d {a: 1, b: 2}\nc:\n  <<: *d\n  b: 3\n", "a: 'yes'\nb: \"1\"\nc: !!str 5\nd: ! 5\n",
             "d: &d {a: 1}\ne: &e {a: 5, z: 1}\nc:\n  <<: [*e, *d]\n", "a: é\n", "%YAML 1.1\n---\na: 1\n...\n",
             "- 1\n- - 2\n  - 3\n", "a: # nothing\nb: x # more\n", "? a\n: b\n", "{a: 1, b: [2,], c: }\n"]
REFUSED = ["a: *x\n", "a: [1\n", "a:\n\t- 1\n", "a: 1\n---\nb: 2\n", "a: !x 1\n", "a: !!int x\n",
           "<<: 3\n", "a: &x 1\nb: &x 2\n", ": 1: 2\n", "a: b: c\n", "\x01", "a: 'x\n", "a: \"\\q\"\n"]


def ours(text: str):
    Path("t.yml").write_text(text)
    run = subprocess.run([PROGRAM, "t.yml"], capture_output=True)
    assert run.returncode in (0, 1) and not run.stderr, (text, run)
    out = run.stdout.decode("utf-8", "replace")
    return json.loads(out) if run.returncode == 0 else out


def as_json(value, text: str):
    """What our JSON shows of a Python value: dates, huge integers and infinities as written."""
    if isinstance(value, dict):
        return {k: as_json(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [as_json(v, text) for v in value]
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if hasattr(value, "isoformat") or (is_int and not -2 ** 63 <= value < 2 ** 63) or \
            (isinstance(value, float) and not math.isfinite(value)):
        return text
    return value


ERROR = object()


def alone(word: str):
    """PyYAML's value of a word in a list; ERROR where it is no scalar or PyYAML stumbles."""
    try:
        value = yaml.safe_load(f"- {word}\n")[0]
    except (yaml.YAMLError, ValueError, ZeroDivisionError):
        return ERROR
    return ERROR if isinstance(value, (dict, list)) else value


def main() -> int:
    bad = []
    for scalar in SCALARS:
        expected, got = as_json(yaml.safe_load(f"a: {scalar}\n")["a"], scalar), ours(f"a: {scalar}\n")
        if not isinstance(got, dict) or got["a"] != expected or \
                isinstance(got["a"], (bool, str)) != isinstance(expected, (bool, str)):
            bad.append((scalar, expected, got))
    characters = "019_.:+-exb"
    for n in (1, 2, 3):  # every short word over the characters of numbers
        words = ["".join(w) for w in itertools.product(characters, repeat=n)]
        random.Random(n).shuffle(words)
        pairs = [(w, alone(w)) for w in words[:400]]
        pairs = [(w, e) for w, e in pairs if e is not ERROR]
        got = ours("".join(f"- {w}\n" for w, _ in pairs))
        assert len(pairs) > 8 and len(got) == len(pairs), (n, got)
        bad += [(w, e, g) for (w, e), g in zip(pairs, got)
                if as_json(e, w) != g or isinstance(e, str) != isinstance(g, str)]
    for text in DOCUMENTS:
        expected, got = as_json(yaml.safe_load(text), text), ours(text)
        if got != expected:
            bad.append((text, expected, got))
    for text in REFUSED:
        got = ours(text)
        if not (isinstance(got, str) and got.startswith("error: r.yml:")):
            bad.append((text, "an error", got))
    damage = random.Random(int(os.environ.get("AM_SEED", "1")))
    for _ in range(150):
        letters = list(DOCUMENTS[6] + DOCUMENTS[4].replace("&d", "&q").replace("*d", "*q"))
        for _ in range(damage.randint(1, 4)):
            letters[damage.randrange(len(letters))] = damage.choice("{}[]:-*&!|>'\"\n \t#%@`,?~x0\x7f")
        ours("".join(letters))
    for case in bad:
        print("input %r: expected %r, got %r" % case)
    return 1 if bad else 0


sys.exit(main())
