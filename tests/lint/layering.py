"""A lower folder never includes a higher one; includes are written from the root."""
import re
import source

MAY_INCLUDE = {
    "mpi": {"mpi"},
    "solver": {"mpi", "solver"},
    "io": {"mpi", "io"},
    "jobs": {"mpi", "solver", "io", "jobs"},
    "tests": {"mpi", "solver", "io", "jobs", "tests"},
}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)


def check_include(path, kind, target, tree):
    folder, first = path.split("/")[0], target.split("/")[0]
    if kind == "<":
        return f"own header {target} in angle brackets" if "/" in target and first in \
            MAY_INCLUDE else None
    if "/" not in target or first not in MAY_INCLUDE:
        return f'"{target}" is not written from the root'
    if first not in MAY_INCLUDE[folder]:
        return f'{folder}/ must not include {first}/ ("{target}")'
    if target not in tree and len(tree) > 1:
        return f'"{target}" does not exist'
    return None


def check(tree):
    found = []
    for path in source.c_files(tree, MAY_INCLUDE):
        text = tree[path]
        if path.endswith(("/mpi.h", "/hdf5.h")):
            found.append(f"{path}:1: the name of a library's header")
        for match in INCLUDE.finditer(text):
            message = check_include(path, match.group(1), match.group(2), tree)
            if message:
                found.append(f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {message}")
    methods = [p for p in tree if re.match(r"solver/(methods|layers|optim)/.*\.c$", p)]
    found += source.matches(tree, methods, r"\b(MPI_[A-Z]\w*)\s*\(",
                            "a method, layer or optimiser makes no MPI call ({})")
    return found


PLANTED = [
    {"mpi/a.c": '#include "io/checkpoint/format.h"\n'},
    {"mpi/a.h": '# include "solver/merge/merge.h"\n'},
    {"solver/a.c": '#include "io/dtype.h"\n'},
    {"solver/methods/a.c": '#include "jobs/recipe/bind.h"\n'},
    {"io/formats/h5.c": '#include "solver/merge/merge.h"\n'},
    {"jobs/a.c": '#include "tests/am_test.h"\n'},
    {"mpi/a.c": '#include "error.h"\n'},
    {"mpi/a.c": '#include "../io/format.h"\n'},
    {"io/a.c": "#include <mpi/error.h>\n"},
    {"io/a.c": '#include "mpi/nowhere.h"\n', "io/b.c": ""},
    {"mpi/mpi.h": ""},
    {"solver/methods/ties.c": "void f(void) { MPI_Barrier(c); }\n"},
]
CLEAN = [
    {"mpi/a.c": "#include <mpi.h>\n#include <stdio.h>\n"},
    {"jobs/commands/a.c": '#include "solver/merge/merge.h"\n', "solver/merge/merge.h": ""},
    {"solver/methods/ties.c": "/* no MPI_Barrier( here */\n"},
]

if __name__ == "__main__":
    source.run(check, PLANTED, CLEAN)
