#!/usr/bin/env python3
"""report: the page is well-formed and needs nothing else; its numbers are those of the runs, means and
standard errors those of numpy, in tables and where marks stand in plots; the same bytes on any number of
ranks and in any order of the runs; text of the runs stays text. Pages of experiments
say what follows from the results.                                     usage: report.py [general] [pages]
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
from checks import check, finish  # noqa: E402

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
    slopes = [s["gap"]["slope"] for r in results for s in r["slopes"] if s["k"] > 1]
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


def claims(page: ElementTree.Element, *words: str) -> str:
    """The only claim that has all the words."""
    found = [c for c in ("".join(p.itertext()) for p in page.iter("p") if "claim" in p.get("class", ""))
             if all(w in c for w in words)]
    check(len(found) == 1, f"one claim of {words}: {found}")
    return found[0] if found else ""


def verdict(d: list[float], limit: float, is_above: bool) -> str:
    """What a claim must begin with, by the rule of two standard errors."""
    mean, error = mean_error(d)
    if abs(mean - limit) <= 2 * error:
        return "Not decided"
    return "The claim holds" if (mean > limit) == is_above else "The claim does not hold"


def says(text: str, values: list[float], digits: int, what: str) -> None:
    mean, error = mean_error(values)
    wanted = f"{mean:.{digits}f} \u00b1 {error:.{digits}f}"
    check(wanted in text, f"{what}: {wanted} is not in {text!r}")


EXPERIMENTS = {
    "one_epoch": "--set one_shot.epochs=[1,6] --set one_shot.methods=[{\"name\":\"average\",\"merge_method\":\"linear\"},"
                 "{\"merge_method\":\"ties\",\"parameters\":{\"density\":0.5}}]",
    "budget": "--set iterate.rounds=null --set iterate.budget=4 --set iterate.epochs=[1,2,4] --set iterate.curve=yes",
    "dare": "--set iterate.curve=yes --set iterate.methods=[{\"merge_method\":\"task_arithmetic\"},"
            "{\"merge_method\":\"dare_linear\",\"parameters\":{\"density\":0.2}}]",
    "post_hoc": "--set iterate.start=one_shot --set iterate.split=validation --set iterate.curve=yes",
    "methods": "--set one_shot.epochs=[4] --set one_shot.methods=[{\"name\":\"average\",\"merge_method\":\"linear\"},"
               "{\"merge_method\":\"task_arithmetic\"},{\"merge_method\":\"iso_c\",\"alphas\":[0.1,1.0]},"
               "{\"merge_method\":\"ties\",\"parameters\":{\"density\":[0.2,0.9],\"normalize\":[yes,no]}}]",
    "plane": "--set iterate.keep=0 --set plane.grid=6 --set gradients.epochs=4",
}


def experiment(name: str) -> tuple[ElementTree.Element, list[dict]]:
    """Runs of an experiment, three seeds, and its page."""
    for seed in SEEDS:
        run(f"iterate suite.yml -o {name}{seed} --set seed={seed} --set experiment={name} {EXPERIMENTS[name]}")
    run("report " + " ".join(f"{name}{s}" for s in SEEDS) + f" -o {name}.html")
    return parse(f"{name}.html"), [json.loads((folder / f"{name}{s}/result.json").read_text()) for s in SEEDS]


def rows_of(results: list[dict], key: str, member: str = "test_accuracy") -> list[float]:
    return [100 * next(r[member] for r in result["rows"] if r["key"] == key) for result in results]


def rounds_of(results: list[dict], key: str, index: int, member: str = "test_accuracy") -> list[float]:
    return [100 * next(r for r in result["rounds"] if r["key"] == key)["points"][index][member] for result in results]


def minus(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b)]


def check_one_epoch() -> None:
    page, results = experiment("one_epoch")
    for method in ("average", "ties"):
        one, six = (rows_of(results, f"one_shot_{method}_{e}") for e in (1, 6))
        text = claims(page, f"{method}: 1 epoch reaches")
        for values in (one, six, minus(six, one)):
            says(text, values, 2, method)
        check(text.startswith(verdict(minus(six, one), 0.94, False)), f"{method}: verdict of {text}")
        row = next(t for c, t in tables(page).items() if c.startswith("Test accuracy of merges"))[method]
        check(near(row[1], mean_error(six), 2) and near(row[2], mean_error(minus(six, one)), 2), f"{method}: {row}")


def check_budget() -> None:
    page, results = experiment("budget")
    many, few, first = (rounds_of(results, k, i) for k, i in
                        (("iterative_epochs_1", 4), ("iterative_epochs_4", 1), ("iterative_epochs_1", 1)))
    for words, a, b in (("More rounds are better", many, first), ("A budget of epochs", many, few)):
        text = claims(page, words)
        for values in (a, b, minus(a, b)):
            says(text, values, 2, words)
        check(text.startswith(verdict(minus(a, b), 0, True)), f"{words}: verdict of {text}")
    check_marks(page, "Accuracy by epochs spent",
                {k: {p["epochs"]: np.mean(rounds_of(results, f"iterative_epochs_{k}", i))
                     for i, p in enumerate(next(r for r in results[0]["rounds"]
                                                if r["key"] == f"iterative_epochs_{k}")["points"])} for k in (1, 2, 4)})


def check_dare() -> None:
    page, results = experiment("dare")
    first, last = (rounds_of(results, "iterative_dare_linear", i) for i in (1, 3))
    text = claims(page, "collapses")
    for values in (first, last, minus(first, last)):
        says(text, values, 2, "collapse")
    check(text.startswith(verdict(minus(first, last), 0, True)), f"collapse: verdict of {text}")
    says(claims(page, "Without dropping"), minus(rounds_of(results, "iterative_task_arithmetic", 3), last), 2, "without")
    ratios = [np.mean([p["noise_energy"] / p["noise_expected"] for p in
                       next(r for r in result["rounds"] if r["key"] == "iterative_dare_linear")["points"][1:]])
              for result in results]
    text = claims(page, "each round adds noise")
    says(text, ratios, 4, "noise")
    check(text.startswith("The claim holds") == (abs(np.mean(ratios) - 1) <= 0.05), f"noise: verdict of {text}")


def check_post_hoc() -> None:
    page, results = experiment("post_hoc")
    before, after = rows_of(results, "one_shot"), rows_of(results, "iterative")
    text = claims(page, "on validation data alone")
    for values in (before, after, minus(after, before)):
        says(text, values, 2, "post hoc")
    check(text.startswith(verdict(minus(after, before), 0, True)), f"post hoc: verdict of {text}")


def check_methods() -> None:
    page, results = experiment("methods")
    table = next(t for c, t in tables(page).items() if c.startswith("Merges, mean over the tasks"))
    by_task = next(t for c, t in tables(page).items() if c.startswith("Test accuracy in percent, by task"))
    reference, base, own = (rows_of(results, k) for k in ("one_shot_task_arithmetic_4", "base", "individual"))
    for method, is_above in (("average", False), ("iso_c", True), ("ties", True)):
        values = rows_of(results, f"one_shot_{method}_4")
        text = claims(page, f"{method} reaches")
        for what in (values, minus(values, reference)):
            says(text, what, 2, method)
        check(text.startswith(verdict(minus(values, reference), 0, is_above)), f"{method}: verdict of {text}")
        shares = [100 * (v - b) / (i - b) for v, b, i in zip(values, base, own) if i > b]
        row = table[method]
        check(near(row[0], mean_error(values), 2) and near(row[1], mean_error(minus(values, reference)), 2) and
              (len(shares) < 2 or near(row[2], mean_error(shares), 0)), f"{method}: {row}")
        first = [100 * next(r for r in result["rows"] if r["key"] == f"one_shot_{method}_4")["task_accuracy"][0]
                 for result in results]
        check(near(by_task[method][0], mean_error(first), 1), f"{method}, first task: {by_task[method][0]}")
    chosen = [next(r for r in result["rows"] if r["key"] == "one_shot_ties_4") for result in results]
    told = (", ".join(f"{r['alpha']:g}" for r in chosen) + "; density " +
            ", ".join(f"{r['searched']['density']:g}" for r in chosen) + "; normalize " +
            ", ".join("yes" if r["searched"]["normalize"] else "no" for r in chosen))
    check(any("".join(cell.itertext()) == told for cell in page.iter("td")), f"what was chosen: no cell is {told!r}")


def check_plane() -> None:
    page, results = experiment("plane")
    far, line, step = [], [], []
    for result in results:
        points = result["plane"]["points"]
        at = {kind: [np.array([p["x"], p["y"]]) for p in sorted(points, key=lambda p: p["round"] or 0)
                     if p["kind"] == kind] for kind in ("base", "one_shot", "iterative")}
        way = np.diff([at["base"][0], *at["iterative"]], axis=0)
        steps = [s for s in np.linalg.norm(way, axis=1) if s > 0]
        length = np.linalg.norm(way.sum(axis=0))
        far.append(length / max(np.linalg.norm(p - at["base"][0]) for p in at["one_shot"]))
        line.append(length / sum(steps))
        step.append(steps[-1] / steps[0])
    for words, values, digits, limit, is_above in (("One-shot merges stay", far, 2, 1, True), ("nearly straight", line, 3, 0.9, True),
                                                   ("Steps shrink", step, 3, 1, False)):
        text = claims(page, words)
        says(text, values, digits, words)
        check(text.startswith(verdict(values, limit, is_above)), f"{words}: verdict of {text}")
    shades = [p for p in page.iter(f"{SVG}path") if p.get("fill") == "var(--s3)"]
    check(len(shades) == 20 and all(p.get("d") for p in shades), f"ten shades of two planes: {len(shades)}")
    shares = next(t for c, t in tables(page).items() if c.startswith("First epoch's share"))
    for task in results[0]["tasks"]:
        mine = [[g for g in r["gradients"] if g["task"] == task] for r in results]
        wanted = mean_error([g[0]["accumulated_share"] for g in mine])
        check(near(shares[task][0], wanted, 3), f"{task}: share {shares[task][0]}, not {wanted}")
        wanted = mean_error([min(e["cosine_first_accumulated"] for e in g[1:5]) for g in mine])
        check(near(shares[task][2], wanted, 3), f"{task}: cosine {shares[task][2]}, not {wanted}")


def check_optimizer() -> None:
    for seed in SEEDS[:2]:
        run(f"theory theory.yml -o optimizer{seed} --set seed={seed} --set experiment=optimizer --set theory.k=[1,2] "
            "--set theory.optimizers=[gd,adamw]")
    run("report optimizer7 optimizer8 -o optimizer.html")
    page = parse("optimizer.html")
    results = [json.loads((folder / f"optimizer{s}/result.json").read_text()) for s in SEEDS[:2]]
    for name, holds in (("gd", True), ("adamw", False)):
        slopes = [s["slope"] for r in results for s in r["optimizer_slopes"] if s["optimizer"] == name and s["k"] > 1]
        text = claims(page, f"{name}, more epochs")
        check(f"between {min(slopes):.4f} and {max(slopes):.4f}" in text, f"{name}: {text}")
        for what in ("one epoch", "more epochs"):
            check(claims(page, f"{name}, {what}").startswith("The claim holds") == holds, f"{name}, {what}: {holds}")


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


def check_missing_row(runs: list[Path]) -> None:
    """A row that the first seed does not have (its merges diverged, say) has the mean of the others."""
    shutil.copytree(runs[0], folder / "less")
    result = json.loads((folder / "less/result.json").read_text())
    result["rows"] = [r for r in result["rows"] if r["key"] != "joint"]
    (folder / "less/result.json").write_text(json.dumps(result))
    run(f"report less {runs[1].name} {runs[2].name} -o less.html")
    table = next(t for c, t in tables(parse("less.html")).items() if c.startswith("Test accuracy"))
    joint = [next(r for r in json.loads((x / "result.json").read_text())["rows"] if r["key"] == "joint") for x in runs]
    wanted = mean_error([100 * r["test_accuracy"] for r in joint[1:]])
    got = table.get(joint[0]["name"], [None])[-1]
    check(got is not None and near(got, wanted, 2), f"joint training of two of three seeds: {got}, not {wanted}")


def check_general() -> None:
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
    check_missing_row(runs)
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


PARTS = {"general": [check_general],
         "pages": [check_one_epoch, check_budget, check_dare, check_post_hoc, check_methods, check_plane, check_optimizer]}


def main() -> None:
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", folder / "tasks",
                    "a:4:120", "b:3:90", "c:5:150", "p:8:200"], check=True)
    for name in ("suite", "theory"):
        shutil.copy(HERE.parent / "support" / f"small_{name}.yml", folder / f"{name}.yml")
    for name in sys.argv[1:] or PARTS:
        for part in PARTS[name]:
            part()
    left = sorted(p.name for p in folder.iterdir() if p.suffix not in (".html", ".yml") and p.is_file())
    check(not left, f"nothing is left behind: {left}")
    finish(folder)


if __name__ == "__main__":
    main()
