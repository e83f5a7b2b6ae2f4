"""Every test_* file is named in the CMakeLists.txt of its folder: a merge that drops a line of the
list would otherwise drop a test without a sound."""
import os
import re
import source


def check(tree):
    found = []
    for path in sorted(tree):
        folder, name = os.path.split(path)
        if re.match(r"tests/\w+/test_[\w.]+\.(c|sh|py)$", path):
            listed = tree.get(folder + "/CMakeLists.txt", "")
            if not re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", listed):
                found.append(f"{path}:1: not in {folder}/CMakeLists.txt")
    return found


PLANTED = [
    {"tests/unit/test_a.c": "", "tests/unit/CMakeLists.txt": "am_add_mpi_test(b test_b.c)\n"},
    {"tests/cli/test_a.py": ""},
    {"tests/unit/test_a.sh": "", "tests/unit/CMakeLists.txt": "x(a xtest_a.sh)\nx(b test_a.sh.in)\n"},
]
CLEAN = [
    {"tests/unit/test_a.c": "", "tests/unit/CMakeLists.txt": "am_add_mpi_test(a test_a.c)\n"},
    {"tests/unit/probe.c": "", "tests/am_test.c": ""},
]

if __name__ == "__main__":
    source.run(check, PLANTED, CLEAN)
