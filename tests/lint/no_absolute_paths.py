"""No file of the tree names a folder of the machine on which it was written."""
import source

# written in pieces, so that this file does not find itself
PATTERN = r"(?<![\w.$}/~-])(/(?:" + "|".join(["ho" + "me", "ro" + "ot", "wo" + "rk", "Us" + "ers"]) \
    + r")/[\w.-]+)"


def check(tree):
    return source.matches(tree, sorted(tree), PATTERN, "absolute path {}", lambda text: text)


def at(*parts):
    return "/" + "/".join(parts)


PLANTED = [
    {"README.md": "cd " + at("ho" + "me", "ann", "allmerge") + "\n"},
    {"tests/a.py": "open('" + at("ro" + "ot", "x.h5") + "')\n"},
    {"slurm/a.sbatch": "DATA=" + at("wo" + "rk", "data") + "\n"},
    {"mpi/a.c": '/* see "' + at("Us" + "ers", "ann") + '" */\n'},
]
CLEAN = [
    {"README.md": "cd $HOME" + at("wo" + "rk", "data") + " and ${X}" + at("ho" + "me", "a") + "\n"},
    {"README.md": "build" + at("wo" + "rk", "x") + " ~/data /usr/bin/python3 /etc/os-release\n"},
]

if __name__ == "__main__":
    source.run(check, PLANTED, CLEAN)
