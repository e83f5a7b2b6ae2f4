#!/usr/bin/env python3
"""report: the page is well-formed and needs nothing else; its numbers are those of the runs, means and
standard errors those of numpy, in tables and where marks stand in plots; the same bytes on any number of
ranks and in any order of the runs; text of the runs stays text.                       usage: report.py
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402
from checks import check, failures  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"
SEEDS = (7, 8, 9)
THEORY = "--set theory.spectrum=2 --set theory.k=[1,2,3]"
HOSTILE = ['<script>alert("1")</script>', "a&b'c\u0007<d>", "e" * 200]
folder = Path(tempfile.mkdtemp(prefix="am_report."))


def run(arguments: str, ranks: int = 0, code: int = 0) -> rankrun.Result:
    result = rankrun.run(arguments.split(), ranks, folder, timeout=120)
    result.expect_code(code)
    check(not result.problems, f"{arguments} on {ranks} ranks", result)
    return result


class Balanced(HTMLParser):
    """Tags that are opened are closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.faults = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def parse(name: str) -> ElementTree.Element:
    """The page as XML; nothing in it is fetched or run."""
    text = (folder / name).read_text(encoding="utf-8")
    page = ElementTree.fromstring(text[text.index("<html"):])
    parser = Balanced()
    parser.feed(text)
    check(not parser.faults and not parser.open, f"{name}: tags {parser.faults} {parser.open}")
    tags = {e.tag.removeprefix(SVG) for e in page.iter()}
    check(not tags & {"script", "link", "img", "iframe", "object", "use", "image"}, f"{name}: tags {tags}")
    check(text.count("http") == text.count('xmlns="http://www.w3.org/2000/svg"'), f"{name}: names no address")
    check("url(" not in text and "@import" not in text, f"{name}: fetches nothing")
    check(not any(k.startswith("on") for e in page.iter() for k in e.attrib), f"{name}: runs nothing")
    check(not re.search(r"\b(nan|inf|-nan|\(null\))\b", text), f"{name}: a number is not one")
    for svg in page.iter(f"{SVG}svg"):
        check_inside(name, svg)
    return page


def check_inside(name: str, svg: ElementTree.Element) -> None:
    """Marks and text lie in the figure, by their anchor; text as wide as it is at least."""
    _, _, wide, high = map(float, svg.get("viewBox").split())
    what = f"{name}: {svg.get('aria-label')[:60]}"
    for mark in svg.iter(f"{SVG}circle"):
        check(0 <= float(mark.get("cx")) <= wide and 0 <= float(mark.get("cy")) <= high, f"{what}: a mark is outside")
    for path in svg.iter(f"{SVG}path"):
        numbers = re.findall(r"-?\d+\.\d+", path.get("d"))
        check(all(-1 <= float(v) <= max(wide, high) for v in numbers), f"{what}: a line is outside")
    for text in svg.iter(f"{SVG}text"):
        x, y, width = float(text.get("x")), float(text.get("y")), 5 * len(text.text or "")
        left = x - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor", "start")]
        check(0 <= y <= high, f"{what}: {text.text!r} is outside")
        if text.get("transform") is None:
            check(left >= -2 and left + width <= wide + 2, f"{what}: {text.text!r} is cut")


def tables(page: ElementTree.Element) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """caption -> row -> (value, what follows it in small) by column; NaN: no number."""
    out = {}
    for table in page.iter("table"):
        rows = out.setdefault(table.findtext("caption") or "", {})
        rows[""] = [th.text or "" for th in table.iter("th") if th.get("scope") == "col"]
        for row in table.find("tbody"):
            cells = []
            for td in row.iter("td"):
                small = td.find("small")
                cells.append((number(td.text), number(small.text if small is not None else None)))
            rows[row.findtext("th")] = cells
    return out


def number(text: str | None) -> float:
    try:
        return float((text or "").replace("\u00b1", ""))
    except ValueError:
        return math.nan


def mean_error(values: list[float]) -> tuple[float, float]:
    x = np.array(values)
    return x.mean(), x.std(ddof=1) / math.sqrt(len(x)) if len(x) > 1 else math.nan


def near(got: tuple[float, float], wanted: tuple[float, float], digits: int) -> bool:
    return all((math.isnan(g) and math.isnan(w)) or abs(g - w) <= 0.5001 * 10.0 ** -digits for g, w in zip(got, wanted))


def figure(page: ElementTree.Element, caption: str) -> ElementTree.Element:
    found = [f for f in page.iter("figure") if (f.findtext("figcaption") or "").startswith(caption)]
    check(len(found) == 1, f"one figure {caption}: {len(found)}")
    return found[0].find(f"{SVG}svg")


def scale(svg: ElementTree.Element, is_y: bool, is_log: bool = False) -> tuple[float, float]:
    """Place = a + b value (or its logarithm), from the tick labels."""
    ticks = [(float(t.get("x")), float(t.get("y")), t) for t in svg.iter(f"{SVG}text") if t.get("class") == "t"]
    raised = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
    value, place = [], []
    for x, y, tick in ticks:
        if (tick.get("text-anchor") == "end") == is_y:
            factor, ten, power = re.fullmatch("(?:([\\d.]+)\u00b7)?(10)?([\u2070-\u207b\u00b9\u00b2\u00b3]*)", tick.text).groups() \
                if "10" in tick.text and tick.text[-1] not in "0123456789" else (tick.text, None, "")
            v = float(factor or 1) * (10.0 ** int(power.translate(raised)) if ten else 1)
            value.append(math.log(v) if is_log else v)
            place.append(y - 3.5 if is_y else x)
    b, a = np.polyfit(value, place, 1)
    return a, b


def check_marks(page, caption: str, wanted: dict[str, dict[float, float]], is_log: bool = False) -> None:
    """Every series has a mark at every (x, mean), within a third of a pixel."""
    svg = figure(page, caption)
    (ax, bx), (ay, by) = scale(svg, False, is_log), scale(svg, True, is_log)
    marks = {}
    for circle in svg.iter(f"{SVG}circle"):
        marks.setdefault(circle.get("class"), []).append((float(circle.get("cx")), float(circle.get("cy"))))
    for i, (name, points) in enumerate(wanted.items()):
        for x, y in points.items():
            x, y = (math.log(x), math.log(y)) if is_log else (x, y)
            best = min((math.hypot(ax + bx * x - cx, ay + by * y - cy) for cx, cy in marks[f"f{i}"]), default=99)
            check(best < 0.34, f"{caption} {name}: no mark at {x}, {y}, the nearest is {best:.2f} px away")


def check_iterate(page: ElementTree.Element, runs: list[Path]) -> None:
    results = [json.loads((r / "result.json").read_text()) for r in runs]
    table = next(t for c, t in tables(page).items() if c.startswith("Test accuracy"))
    check(table[""][1:] == [*results[0]["tasks"], "mean"], f"columns {table['']}")
    for i, row in enumerate(results[0]["rows"]):
        values = [[100 * v for v in r["rows"][i]["task_accuracy"]] + [100 * r["rows"][i]["test_accuracy"]]
                  for r in results]
        for c, column in enumerate(zip(*values)):
            wanted, got = mean_error(column), table[row["name"]][c]
            check(near(got, wanted, 2), f"{row['name']} column {c}: {got}, not {wanted}")
    choices = next(t for c, t in tables(page).items() if c.startswith("What was chosen"))
    for i, row in enumerate(results[0]["rows"]):
        wanted = mean_error([r["rows"][i]["test_loss_nats"] for r in results])
        check(near(choices[row["name"]][5], wanted, 4), f"{row['name']}: loss {choices[row['name']][5]}, not {wanted}")
    curves = {}
    for r in runs:
        for line in (r / "events.jsonl").read_text().splitlines():
            e = json.loads(line)
            if e["event"] == "validation" and e["phase"] == "iterate":
                curves.setdefault(e["alpha"], {}).setdefault(e["round"], []).append(100 * e["validation_accuracy"])
    check_marks(page, "Iterative merging by round: mean validation accuracy",
                {a: {x: np.mean(v) for x, v in points.items()} for a, points in curves.items()})


def check_theory(page: ElementTree.Element, runs: list[Path]) -> None:
    results = [json.loads((r / "result.json").read_text()) for r in runs]
    for order in ("gap", "residual"):
        table = next(t for c, t in tables(page).items() if c.startswith(f"Slopes of log {order}"))
        for s in results[0]["slopes"]:
            if s["k"] > 1:
                same = [q[order]["slope"] for r in results for q in r["slopes"]
                        if all(q[m] == s[m] for m in ("tasks", "alpha", "k"))]
                got = table[f"T {s['tasks']}, alpha {s['alpha']:g}"][table[""].index(f"k = {s['k']}") - 1]
                check(near(got, mean_error(same), 4), f"slope of {order} {s}: {got}, not {mean_error(same)}")
    gaps = {}
    for r in results:
        for row in r["rows"]:
            if row["tasks"] == 3 and row["alpha"] == 1 and row["k"] > 1:
                gaps.setdefault(row["k"], {}).setdefault(row["eta"], []).append(row["gap"])
    check_marks(page, "Gap, the distance of \u03b8_TA and \u03b8_MT: T = 3, alpha = 1",
                {k: {x: np.mean(v) for x, v in points.items()} for k, points in gaps.items()}, is_log=True)
    claims = ["".join(p.itertext()) for p in page.iter("p") if "claim" in p.get("class", "")]
    slopes = [s["gap"]["slope"] for s in results[0]["slopes"] if s["k"] > 1]
    says = [c for c in claims if "order 2" in c]
    check(len(says) == 1 and f"over {len(slopes)} settings" in says[0], f"claims {claims}")
    share = max(r["c"] / r["bound_derived"] for q in results for r in q["rows"] if r["bound_derived"])
    says = [c for c in claims if "derived bound" in c]
    check(len(says) == 1 and f"up to {share:.3g} of it" in says[0] and says[0].startswith("The claim holds"),
          f"derived bound {share}: {says}")
    values = [s["eigenvalues"][0] for r in results for s in r["spectra"] if s["task"] is None and s["at"] == "base"
              and s["tasks"] == 3]
    got = next(t for c, t in tables(page).items() if c.startswith("Largest eig"))["T 3, base, sum of the tasks"][0]
    check(near(got, mean_error(values), 4), f"largest eigenvalue {got}, not {mean_error(values)}")


def make_hostile(source: Path, target: Path) -> None:
    """A finished run whose tasks have names that are markup."""
    shutil.copytree(source, target)
    job, result = (json.loads((target / f).read_text()) for f in ("job.json", "result.json"))
    events = [json.loads(line) for line in (target / "events.jsonl").read_text().splitlines()]
    names = dict(zip(result["tasks"], HOSTILE))
    result["tasks"] = job["recipe"]["data"]["tasks"] = HOSTILE
    result["rows"][0]["name"] = "</th></table><svg onload='x'>"
    for e in events:
        if e.get("task") in names:
            e["task"] = names[e["task"]]
    (target / "job.json").write_text(json.dumps(job))
    (target / "result.json").write_text(json.dumps(result))
    (target / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))


def main() -> None:
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", folder / "tasks",
                    "a:4:120", "b:3:90", "c:5:150", "p:8:200"], check=True)
    for name in ("suite", "theory"):
        shutil.copy(HERE.parent / "support" / f"small_{name}.yml", folder / f"{name}.yml")
    for seed in SEEDS:
        run(f"iterate suite.yml -o s{seed} --set seed={seed}")
        run(f"theory theory.yml -o t{seed} --set seed={seed} {THEORY}")
    run("train suite.yml --task a -o one")

    runs = [folder / f"s{s}" for s in SEEDS]
    told = json.loads(run("report s7 s8 s9 -o s.html").out)
    text = (folder / "s.html").read_bytes()
    check(told == {"output": "s.html", "job": "iterate", "experiment": None, "runs": 3, "bytes": len(text)},
          f"what is told: {told}")
    check(len(text) < 100_000, f"the page is small: {len(text)} bytes")
    check_iterate(parse("s.html"), runs)
    run("report s9 s7/ s8 -o other.html", 3)
    check((folder / "other.html").read_bytes() == text, "the same bytes on 3 ranks and in another order")
    run("report s7 -o s.html", 2, code=73)
    check((folder / "s.html").read_bytes() == text, "a page that exists stays")
    run("report s8 -o s.html --overwrite", 3)
    check_iterate(parse("s.html"), [folder / "s8"])
    check("standard error" not in (folder / "s.html").read_text(), "one seed has no standard error")

    run("report t8 t7 t9 -o t.html")
    check_theory(parse("t.html"), [folder / f"t{s}" for s in SEEDS])
    run("report t8 -o t8.html")
    parse("t8.html")
    run("report one -o one.html", 2)
    row = next(t for c, t in tables(parse("one.html")).items() if c.startswith("Test accuracy"))["trained model"]
    check(near(row[0], (100 * json.loads((folder / "one/result.json").read_text())["rows"][1]["test_accuracy"],
                        math.nan), 2), f"the trained model: {row}")

    make_hostile(folder / "s7", folder / "hostile")
    run("report hostile -o hostile.html")
    page = parse("hostile.html")
    names = next(t for c, t in tables(page).items() if c.startswith("Test accuracy"))
    check(names[""][1:4] == [h.replace("\u0007", "\ufffd") for h in HOSTILE], f"names are text: {names['']}")
    check("</th></table><svg onload='x'>" in names, "the name of a row is text")
    left = sorted(p.name for p in folder.iterdir() if p.suffix not in (".html", ".yml") and p.is_file())
    check(not left, f"nothing is left behind: {left}")
    if failures() == 0:
        shutil.rmtree(folder)
    sys.exit(failures() > 0)


if __name__ == "__main__":
    main()
