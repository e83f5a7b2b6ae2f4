"""Calls that one rank must not make alone, float sums that depend on the rank count, unchecked MPI
calls, printing past the log, and compiler flags that change numbers."""
import os
import re
import source

# (folders, files and folders exempt, pattern, message)
C_RULES = [
    (source.CODE, {"mpi/runtime.c"},
     r"(?<![\w.>])(_?exit|_Exit|quick_exit|abort|assert|MPI_Abort)\s*\(",
     "{} ends one rank alone: return a code, or AM_ASSERT"),
    (source.CODE, set(),
     r"\b(MPI_I?(?:[Aa]llreduce|[Rr]educe|[Ss]can|[Ee]xscan|[Rr]educe_scatter\w*))\s*\("
     r"[^;]*?\bMPI_(?:FLOAT|DOUBLE|LONG_DOUBLE|C_\w+)\b[^;]*?\bMPI_(?:SUM|PROD)\b",
     "{} of floats depends on the rank count: use mpi/reduce.h"),
    (source.CODE, set(), 
     r"[;{}]\s*(MPI_(?!Comm_rank\b|Comm_size\b)\w+)\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\s*;",
     "the return value of {} is not checked"),
    (source.CODE, {"mpi/log.c", "mpi/runtime.c", "jobs/help.c", "jobs/commands/"},
     r"(?<![\w.>])((?:v?printf|puts|putchar|perror)\s*\("
     r"|v?f(?:printf|puts|putc)\s*\([^;]*\bstdout)",
     "{} goes past the log: use mpi/log.h; only a command writes its answer to stdout"),
    (source.CODE, {"mpi/log.c", "mpi/runtime.c"},
     r"(?<![\w.>])(v?f(?:printf|puts|putc)\s*\([^;]*\bstderr)\b",
     "{} goes past the log: use mpi/log.h"),
    (source.CODE, set(), r"(?<![\w.>])(gets|alloca|strtok|setlocale)\s*\(",
     "{} is banned"),
    (("solver",), set(), r"(?<![\w.>])(fopen|open|creat|getenv|mkdir|unlink|system|popen)\s*\(",
     "solver/ knows no files and no environment: {}"),
    (source.CODE, set(), r"#\s*pragma\s+(STDC\s+FP_CONTRACT\s+ON|GCC\s+optimize|omp)",
     "pragma {} changes numbers"),
]
FLAGS = (r"(-ffast-math|-Ofast|-funsafe-math\S*|-fassociative-math|-freciprocal-math"
         r"|-ffinite-math-only|-ffp-contract=(?:fast|on)|-mdaz-ftz|-march=native)")


def check(tree):
    found = []
    for folders, exempt, pattern, message in C_RULES:
        paths = [p for p in source.c_files(tree, folders)
                 if p not in exempt and os.path.dirname(p) + "/" not in exempt]
        found += source.matches(tree, paths, pattern, message)
    paths = source.c_files(tree, source.CODE)
    found += source.matches(tree, paths, r'optimize\s*\(\s*"(?:O|[^"]*fast|[^"]*unsafe)',
                            "function attributes must not change numbers", lambda text: text)
    builds = [p for p in tree if re.search(r"(CMakeLists\.txt|\.cmake|CMakePresets\.json)$", p)
              or p == "jobs/build"]
    found += source.matches(tree, builds, FLAGS, "{} changes numbers",
                            lambda text: re.sub(r"#[^\n]*", "", text))
    return found


def inside(statement, path="io/a.c"):
    return {path: "void f(void)\n{\n    " + statement + "\n}\n"}


PLANTED = [
    inside("exit(1);"),
    inside("if (x) { abort(); }"),
    inside("assert(x > 0);"),
    inside("_exit (2);"),
    inside("rc = MPI_Abort(c, 1);"),
    inside("rc = MPI_Allreduce(a, b, 1, MPI_DOUBLE, MPI_SUM, c);"),
    inside("rc = MPI_Allreduce(MPI_IN_PLACE, b, n,\n        MPI_FLOAT,\n        MPI_SUM, c);"),
    inside("rc = MPI_Ireduce(a, b, 1, MPI_DOUBLE, MPI_PROD, 0, c, &r);"),
    inside("MPI_Barrier(c);"),
    inside("MPI_Bcast(x, 1,\n        MPI_INT, 0, c);"),
    inside('printf("x");'),
    inside('fprintf(stderr, "x");', "jobs/commands/a.c"),
    inside('x = 1; (void)puts("x");', "jobs/a.c"),
    inside('(void)fputs("x", stdout);'),
    inside('perror("x");'),
    inside("p = alloca(n);"),
    inside('x = strtok(a, ",");'),
    inside('f = fopen("x", "r");', "solver/a.c"),
    inside('x = getenv("HOME");', "solver/layers/a.c"),
    {"io/a.c": "#pragma STDC FP_CONTRACT ON\n"},
    {"io/a.c": '__attribute__((optimize("fast-math"))) void f(void);\n'},
    {"CMakeLists.txt": "add_compile_options(-ffast-math)\n"},
    {"solver/CMakeLists.txt": "set(X -Ofast)\n"},
    {"CMakePresets.json": '{"x": "-ffp-contract=fast"}\n'},
]
CLEAN = [
    inside("exit(1);", "mpi/runtime.c"),
    inside("am_assert_exit(1); on_exit_x(); p->abort(1);"),
    inside("/* never exit(1) */ (void)am_fail(c, \"exit(1)\");"),
    inside("rc = MPI_Allreduce(a, b, 1, MPI_INT64_T, MPI_SUM, c);"),
    inside("rc = MPI_Allreduce(a, b, 1, MPI_DOUBLE, MPI_MAX, c);"),
    inside("rc = f(MPI_DOUBLE); rc = MPI_Allreduce(a, b, 1, MPI_INT, MPI_SUM, c);"),
    inside("AM_TRY(am_mpi_code(MPI_Barrier(c), \"MPI_Barrier\"));"),
    inside("(void)MPI_Comm_free(&c); MPI_Comm_rank(c, &r);"),
    inside('(void)snprintf(a, n, "x"); dprintf(fd, "x"); fprintf(out, "x");'),
    {"CMakeLists.txt": "add_compile_options(-fno-fast-math -ffp-contract=off) # no -ffast-math\n"},
    inside('f = fopen("x", "r");', "io/a.c"),
    inside('puts("answer");', "jobs/commands/a.c"),
    inside("if (MPI_Initialized(&a) == 0 && a &&\n        MPI_Finalized(&b) == 0) { g(); }"),
    {"io/a.h": "int f(const char *x, ...) __attribute__((format(printf, 1, 2)));\n"},
]

if __name__ == "__main__":
    source.run(check, PLANTED, CLEAN)
