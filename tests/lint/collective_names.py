"""The suffix _all if and only if collective: a function that communicates, agrees or calls an _all
function ends in _all itself, and one that ends in _all does one of these."""
import re
import source

COLLECTIVE = re.compile(
    r"\bMPI_(?:I?(?:[Aa]llreduce|[Rr]educe|[Rr]educe_scatter\w*|[Bb]cast|[Bb]arrier|[Aa]llgatherv?"
    r"|[Gg]atherv?|[Ss]catterv?|[Aa]lltoall[vw]?|[Ss]can|[Ee]xscan)"
    r"|Comm_(?:dup|split|create|free|idup|spawn)\w*|Init\w*|Finalize"
    r"|File_(?:open|close|sync|set_size|set_view|preallocate|\w+_all)|Win_(?:create|free|fence)\w*)"
    r"\s*\(|\bAM_AGREE\s*\(|\bC?blacs_(?:gridinit|gridexit|gridmap|barrier)_?\s*\("
    r"|\bpd[a-z]+_\s*\(|\w+_all\s*\)?\s*\(")  # pd: ScaLAPACK
NOT_RUNNING = {"MPI_Initialized", "MPI_Finalized"}
TALKS = re.compile(r"\bMPI_(?:I?[bsr]?send|I?recv|Wait\w*)\s*\(", re.I)


def communicates(body, talkers):
    """Sends and receives, here or in a helper of the same file."""
    return TALKS.search(body) or any(re.search(rf"\b{t}\s*\(", body) for t in talkers)


def check_function(name, body, talkers):
    calls = [m.group(0) for m in COLLECTIVE.finditer(body)
             if m.group(0).rstrip(" (") not in NOT_RUNNING]
    if name.endswith("_all"):
        if not calls and not communicates(body, talkers):
            return f"{name} ends in _all but does nothing collective"
    elif calls and name != "main":
        return f"{name} calls {calls[0].strip()}...) and must end in _all"
    return None


def check(tree):
    """The bodies of tests are called by all ranks whatever their name, and a test may stand in for
    a collective function with one that does nothing."""
    found = []
    for path in source.c_files(tree, source.CODE + ("tests",)):
        functions = list(source.functions(tree[path]))
        talkers = [name for name, _, body in functions if TALKS.search(body)]
        tests = set(re.findall(r"AM_TEST\((\w+)\)", tree[path]))
        for name, line, body in functions:
            message = None if name in tests else check_function(name, body, talkers)
            if message and not (path.startswith("tests/") and "nothing" in message):
                found.append(f"{path}:{line}: {message}")
    return found


def one(code):
    return {"io/a.c": code}


PLANTED = [
    one("int f(MPI_Comm c)\n{\n    return MPI_Barrier(c);\n}\n"),
    one("static int f(void)\n{\n    AM_TRY(am_agree_all(c, rc));\n}\n"),
    one("void f(void) { AM_AGREE(c); }\n"),
    one("void f(void) { x->run_all(1); }\n"),
    one("void f(void) { MPI_File_write_at_all (fh, 0); }\n"),
    one("void f(void) { pdgemm_(\"N\"); }\n"),
    one("void f(void) { MPI_Comm_split(c, 0, 0, &d); }\n"),
    one("int AM_R(f)(int a)\n{\n    return MPI_Barrier(c);\n}\n"),
    one("int f(int a)\n{\n    return AM_R(am_train_all)(a);\n}\n"),
    one("int f(void) { return MPI_Iallreduce(c); }\n"),
    {"tests/unit/a.c": "static void f(void) { am_agree_all(c, 0); }\n"},
    one("static const int t[] = {1, 2};\nAM_CLONES static int *f(int a,\n int b)\n{\n g_all();\n}\n"),
    one("__attribute__((format(printf, 1, 2))) void f(const char *x)\n{\n    g_all();\n}\n"),
    one("int sum_all(int a)\n{\n    return a;\n}\n"),
    one('int sum_all(int a)\n{\n    return puts("MPI_Barrier(c)"); /* am_agree_all(x) */\n}\n'),
]
CLEAN = [
    one("int f_all(MPI_Comm c)\n{\n    return MPI_Barrier(c);\n}\n"),
    one("int main(void) { return am_start_all(0, 0); }\n"),
    one("void f(void) { MPI_Comm_rank(c, &r); MPI_Initialized(&i); MPI_Finalized(&i); }\n"),
    one("#define X(c) \\\n    do { \\\n        MPI_Barrier(c); \\\n    } while (0)\nint f(void);\n"),
    one("void exchange_all(void) { MPI_Isend(p); MPI_Waitall(n); }\n"),
    one("int AM_R(f_all)(int a)\n{\n    return MPI_Barrier(c);\n}\n"),
    one("static void post(void) { MPI_Isend(p); }\nvoid x_all(void) { post(); }\n"),
    {"tests/unit/a.c": "void f(void) { am_agree_all(c, 0); }\nam_test t[] = {AM_TEST(f)};\n"},
    one("/* call am_agree_all(x) first */\nvoid f(void) { g(\"x_all()\"); }\n"),
    one("int f_all(void);\nstatic const t x = {.run_all = f_all};\n"),
]

if __name__ == "__main__":
    source.run(check, PLANTED, CLEAN)
