"""clang-format 14 agrees with every C file."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import source

ROOT = os.environ["AM_SOURCE"]


def complaints(paths):
    style = "--style=file:" + os.path.join(ROOT, ".clang-format")
    run = subprocess.run(["clang-format", style, "--dry-run", "-Werror", *paths],
                         capture_output=True, text=True, check=False)
    return [line for line in run.stderr.split("\n") if "error:" in line or "Error" in line]


def main():
    tool = shutil.which("clang-format")
    version = subprocess.run([tool, "--version"], capture_output=True, text=True,
                             check=False).stdout if tool else "none"
    found = re.search(r"version (\d+)", version)
    if not found or found.group(1) != "14":
        print(f"skipped: needs clang-format 14, found: {version.strip()}")
        sys.exit(77)
    with tempfile.NamedTemporaryFile("w", suffix=".c", encoding="utf-8") as file:
        file.write("int f(void){\n  return 0;}\n")
        file.flush()
        if not complaints([file.name]):
            sys.exit("the lint is blind: clang-format takes a badly written file")
    tree = source.read_tree(ROOT)
    paths = [os.path.join(ROOT, p) for p in source.c_files(tree, source.FOLDERS)]
    found = complaints(paths)
    print("\n".join(found))
    print(f"{len(found)} findings in {len(paths)} files")
    sys.exit(1 if found or not paths else 0)


if __name__ == "__main__":
    main()
