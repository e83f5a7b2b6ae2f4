"""`data list` names what jobs/fetch-data fetches, no more and no less, and finds it."""

import json
import os
import pathlib
import subprocess
import sys

source = pathlib.Path(os.environ["AM_SOURCE"])
binary = os.environ["AM_BIN"]


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def tasks_with(*packages):
    folder = pathlib.Path("src")
    for name in packages:
        (folder / name).mkdir(parents=True)
        (folder / name / "VERSION").write_text("1\n")
    return json.loads(run(binary, "data", "list", "--json", "--sources", str(folder)))["tasks"]


tasks = tasks_with()
listed = {p for t in tasks for p in t["packages"].split()}
fetched = run(str(source / "jobs/fetch-data"), "--list").split()
assert len(fetched) == len(set(fetched)), "fetch-data names a package twice"
assert listed == set(fetched), f"only one of the two lists has {sorted(listed ^ set(fetched))}"

suite = {t["name"] for t in tasks if t["suite"]}
assert suite == set("fashion mnist5k latin cyrillic greek hebrew arabic texture street".split()), suite
others = """scripts latin_small digits latin_accented latin_accented_small latin_extended cyrillic_capital greek_capital
            math thai georgian armenian ethiopic devanagari bengali gujarati""".split()
assert {t["name"] for t in tasks} - suite == set(others) | {f"reference-{x}" for x in "de en es fr it ja pt".split()}
assert all(t["help"] and t["licence"] for t in tasks)

before = {t["name"]: t["packages_absent"] for t in tasks}
after = {t["name"]: t["packages_absent"] for t in tasks_with("gimp-data", "fonts-breip")}
installed = {p for p in ("gimp-data", "fonts-breip") if pathlib.Path(f"/var/lib/dpkg/info/{p}.list").exists()}
expected = {"texture": {"gimp-data"}, "street": {"gimp-data", "fonts-breip"}, "latin": {"fonts-breip"}, "fashion": set()}
for name, packages in expected.items():
    assert before[name] - after[name] == len(packages - installed), name

text = run(binary, "data", "list", "--sources", "src")
for t in tasks:
    assert any(line.split()[:2] == [t["name"], "yes" if t["suite"] else "no"] for line in text.splitlines()), t["name"]
sys.exit(0)
