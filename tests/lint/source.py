"""What every lint shares: the files of the tree, C text without comments, functions, the runner.

A lint is a module with a function check(tree) -> list of "path:line: message", where tree is
{path: text}, and two lists of small trees: PLANTED, in each of which it must find something, and
CLEAN, in which it must find nothing. run() tries those first, then the real tree.
"""
import os
import re
import subprocess
import sys

CODE = ("mpi", "solver", "io", "jobs")
FOLDERS = CODE + ("slurm", "tests")


def list_files(root):
    """Paths of the source tree: what git knows or would add, else all but build folders."""
    if os.path.exists(os.path.join(root, ".git")):
        listed = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard"],
                                capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            return sorted(listed.stdout.split("\n")[:-1])
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith((".", "build", "__pycache__"))]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(found)


def read_tree(root):
    """{path: text} of all text files."""
    tree = {}
    for path in list_files(root):
        try:
            with open(os.path.join(root, path), encoding="utf-8") as file:
                tree[path] = file.read()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue  # binary, or deleted but not yet committed
    return tree


def c_files(tree, folders=CODE):
    return [p for p in tree if p.endswith((".c", ".h")) and p.split("/")[0] in folders]


_TOKENS = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)


def code_only(text):
    """C text with comments and the insides of strings blanked, line numbers kept."""
    def blank(match):
        token = match.group(0)
        kept = re.sub(r"[^\n]", " ", token)
        return '"' + kept[1:-1] + '"' if token[0] == '"' else kept
    return _TOKENS.sub(blank, text)


def without_directives(code):
    """Code with preprocessor lines blanked, continuation lines too."""
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", " ", m.group(0)),
                  code, flags=re.M)


def functions(text):
    """(name, line, body) of every function defined in C text."""
    code = without_directives(code_only(text))
    depth, head_start, body_start, head = 0, 0, 0, ""
    for at, c in enumerate(code):
        if c == "{":
            if depth == 0:
                head, body_start = code[head_start:at], at
            depth += 1
        elif c == "}":
            depth -= 1
            if depth == 0:
                name = _function_name(head)
                if name:
                    yield name, code.count("\n", 0, body_start) + 1, code[body_start:at + 1]
                head_start = at + 1
        elif c == ";" and depth == 0:
            head_start = at + 1


def _function_name(head):
    head = re.sub(r"__attribute__\s*\(\((?:[^()]|\([^()]*(?:\([^()]*\)[^()]*)*\))*\)\)", " ", head)
    if "=" in head or not head.rstrip().endswith(")"):
        return None
    match = re.search(r"\b[A-Z_]+\s*\(\s*(\w+)\s*\)\s*\(", head)  # AM_R(name)(...)
    match = match or re.search(r"([A-Za-z_]\w*)\s*\(", head)
    return match.group(1) if match else None


def matches(tree, paths, pattern, message, transform=code_only):
    """One finding for each match of the pattern in the code of the paths."""
    found = []
    for path in paths:
        text = transform(tree[path])
        for match in re.finditer(pattern, text, re.M):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path}:{line}: {message.format(*match.groups())}")
    return found


def run(check, planted, clean):
    """Try the lint on itself, then on the tree of AM_SOURCE; ends the process."""
    for i, tree in enumerate(planted):
        if not check(tree):
            sys.exit(f"the lint is blind: it finds nothing in planted case {i}: {tree}")
    for i, tree in enumerate(clean):
        if check(tree):
            sys.exit(f"the lint cries wolf in clean case {i}: {check(tree)}")
    tree = read_tree(os.environ["AM_SOURCE"])
    if "mpi/error.c" not in tree:
        sys.exit("the source tree was not found")
    findings = check(tree)
    print("\n".join(findings))
    print(f"{len(findings)} findings in {len(tree)} files; {len(planted)} planted ones were found")
    sys.exit(1 if findings else 0)
