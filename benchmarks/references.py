"""What references bring: places that a bundle was never trained on, known from 1, 5 or 20 cases.

Scans of a finer list of sites are rendered: of the heads that the bundle was trained on for the cases, of the
other heads for the test. One place at a time is added to the bundle's sites, with random cases of it as
references; nothing is trained on them but the linear methods. Of the regions of unseen heads, those of the
place should get it, and all others, under the site of the 15 that they are by the rules, should keep theirs.
Goal with 5 cases: recall of the place at least .80, and macro F1 of the 15 at most .01 lower. Run:

    python benchmarks/references.py --bundle DIR [--work DIR] [--scans 96 32] [--cases N ...] [--draws 5]
        [--method NAME ...] [--json FILE]

DIR was trained with --test-patient: the shipped bundle has seen all heads. Scans and embeddings are kept in
the work folder. The methods share the bundle's embeddings: its Relation Network with the k nearest references
of each class, one that was trained on all pairs of references (all-to-all), and plain classifiers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import frame
import numpy as np
from numpy.typing import NDArray
from reference_methods import METHODS, make_method

from situs.anatomy import read_sites
from situs.bundle import Bundle, read_bundle
from situs.cohort.answers import average_slices, region_areas
from situs.cohort.sampling import choose_evenly
from situs.cohort.slices import open_slices
from situs.errors import InputError
from situs.files import digest, stem
from situs.neighbors import References
from situs.runtime import Runtime
from situs.synth.cohort import render_cohort
from situs.synth.heads import find_heads, read_head
from situs.tables import text_table

LIST = Path(__file__).resolve().parents[1] / "examples" / "finer_sites.csv"
LESIONS = 24  # a scan; more than usual, since the list is longer

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a cohort, embedded: s slices of r regions.

    Attributes:
        embeddings: (s, width) of the slices.
        areas: (s,) by which slices weigh.
        region: (s,) number of the region that each slice is of.
        place: (r,) key of the finer list.
        site: (r,) number among the 15 by the rules; -1 for none.
        patient: (r,) the head.
    """

    embeddings: NDArray[np.float32]
    areas: NDArray[np.float64]
    region: NDArray[np.int64]
    place: NDArray[np.str_]
    site: NDArray[np.int64]
    patient: NDArray[np.str_]

    def of_regions(self, scores: Floats) -> Floats:
        """(r, ...) means of the scores (s, ...) of the slices."""
        return average_slices(scores, self.areas, self.region)


def main(args: list[str] | None = None) -> int:
    parser = frame.Parser(__doc__)
    parser.add_bundle()
    parser.add_heads()
    parser.add_argument("--work", type=Path, default=Path("references.work"), help="folder for scans")
    parser.add_argument("--scans", type=frame.positive, nargs=2, default=(96, 32), metavar="N")
    parser.add_argument("--cases", type=frame.positive, nargs="+", default=(1, 5, 20), metavar="N")
    parser.add_argument("--method", choices=METHODS, nargs="+", default=list(METHODS))
    parser.add_argument("--draws", type=frame.positive, default=5, help="random choices of the cases")
    parser.add_json()
    options = parser.parse_args(args)
    bundle = read_bundle(options.bundle)
    train, test = prepare(bundle, options.heads, options.work, options.scans)
    rows = list(measure(bundle, train, test, options.method, options.cases, options.draws))
    print(
        f"{len(test.place)} test regions; macro F1 before: {np.mean([row['before'] for row in rows]):.3f}\n"
    )
    print(format_means(rows) + "\n")
    for n in options.cases:
        print(format_places(rows, n) + "\n")
    frame.write_json(options.json, rows)
    return 0


def prepare(bundle: Bundle, heads: Path, work: Path, scans: tuple[int, int]) -> tuple[Regions, Regions]:
    """The regions of the bundle's own heads, for the cases, and of the others, for the test."""
    listed, seen = read_sites(LIST), set(bundle.references.patients.tolist())
    of: dict[str, list[Path]] = {"cases": [], "test": []}
    for path in find_heads(heads):
        of["cases" if stem(path) in seen else "test"].append(path)
    if not of["cases"] or not of["test"]:
        raise InputError(f"{bundle.path}: expected a bundle that was trained on some of the heads in {heads}")
    rule_of = read_head(of["test"][0], listed=listed).rule_of
    report, made = frame.ProgressLine(), []
    for (name, paths), n, seed in zip(of.items(), scans, (1, 2), strict=True):
        cohort = work / name
        render_cohort(paths, cohort, n, seed, listed, progress=report, lesions=LESIONS)
        made.append(embed(bundle, cohort, rule_of, report))
    return made[0], made[1]


def embed(bundle: Bundle, cohort: Path, rule_of: dict[str, str], report: frame.ProgressLine) -> Regions:
    """The regions of a cohort; their embeddings are kept beside it."""
    slices = open_slices(cohort, bundle.spec, bundle.recipe.get("max_slices"), progress=report)
    file = cohort / f"{digest(bundle.path / 'basenet.onnx')[:12]}_{len(slices)}.npz"
    if not file.exists():
        runtime, parts = Runtime(bundle), []
        for a in range(0, len(slices), 128):
            views = np.asarray(slices.global_view[a : a + 128]), np.asarray(slices.local_view[a : a + 128])
            parts.append(runtime.embed(*views).embedding)
            report("embedded", min(a + 128, len(slices)), len(slices))
        areas = region_areas(np.asarray(slices.local_view), bundle.spec)
        np.savez(file, embeddings=np.concatenate(parts), areas=areas)
    with np.load(file) as kept:
        embeddings, areas = kept["embeddings"], kept["areas"]
    _, first, region = np.unique(slices.row, return_index=True, return_inverse=True)
    place = np.array([slices.sites.keys[n] for n in slices.site[first]])
    site = np.array([bundle.sites.numbers.get(rule_of[key], -1) for key in place.tolist()])
    return Regions(embeddings, areas, region, place, site, slices.patient[first])


def measure(
    bundle: Bundle, train: Regions, test: Regions, methods: list[str], cases: Sequence[int], draws: int
) -> Iterator[dict[str, Any]]:
    """A row for every method, place, number of cases and draw."""
    places = sorted(set(train.place.tolist()) - set(bundle.sites.keys))
    asked = [(place, n, draw) for place in places for n in cases for draw in range(draws)]
    sets = [draw_cases(train, *which) for which in asked]
    report = frame.ProgressLine()
    for chosen in dict.fromkeys(methods):
        method = make_method(chosen, bundle, test.embeddings)
        before = {name: test.of_regions(scores).argmax(axis=1) for name, scores in method.before.items()}
        for done, (which, kinds) in enumerate(zip(asked, method.after(sets), strict=True)):
            for name, scores in kinds.items():
                yield {"method": name, **score(test, *which, before[name], test.of_regions(scores))}
            report(", ".join(before), done + 1, len(sets))


def score(test: Regions, place: str, n: int, draw: int, before: Ints, scores: Floats) -> dict[str, Any]:
    """How well a place is found, and what it costs the others.

    Args:
        test: The r regions.
        place: The new place.
        n: The number of its cases.
        draw: Which choice of them.
        before: (r,) the sites that the regions had without it.
        scores: (r, m + 1) their scores with it.
    """
    own = test.place == place
    others = ~own & (test.site >= 0)
    found = scores.argmax(axis=1)
    new = found == scores.shape[1] - 1
    f1 = macro_f1(test.site[others], before[others])
    return {
        "place": place,
        "cases": n,
        "draw": draw,
        "regions": int(own.sum()),
        "recall": float(new[own].mean()),
        "precision": float(new[own].sum() / max(new[own | others].sum(), 1)),
        "before": f1,
        "change": macro_f1(test.site[others], found[others]) - f1,
    }


def draw_cases(train: Regions, place: str, n: int, draw: int) -> References:
    """The slices of `n` random regions of a place, spread evenly over the heads, as one class."""
    pool = np.flatnonzero(train.place == place)
    rng = np.random.default_rng([n, draw])
    chosen = pool[choose_evenly(np.zeros(len(pool), int), train.patient[pool], n, rng)]
    of = np.isin(train.region, chosen)
    ids = train.region[of].astype(str)
    return References(train.embeddings[of], np.zeros(len(ids), int), ids, train.patient[train.region[of]], 1)


def macro_f1(truth: NDArray[np.integer], found: NDArray[np.integer]) -> float:
    """The mean F1 of the sites that are among the truth (r,)."""
    right = [
        (2 * ((truth == s) & (found == s)).sum(), (truth == s).sum() + (found == s).sum())
        for s in np.unique(truth)
    ]
    return float(np.mean([a / b for a, b in right]))


def format_means(rows: list[dict[str, Any]]) -> str:
    """Means over places and draws with 95 % intervals, by method and number of cases."""
    table = [["method", "cases", "recall", "precision", "change of macro F1"]]
    for name in dict.fromkeys(row["method"] for row in rows):
        for n in dict.fromkeys(row["cases"] for row in rows):
            of = [row for row in rows if row["method"] == name and row["cases"] == n]
            cells = (interval(of, what, ".2f") for what in ("recall", "precision"))
            table.append([name, str(n), *cells, interval(of, "change", "+.3f")])
    return text_table(table)


def interval(rows: list[dict[str, Any]], what: str, form: str) -> str:
    """A mean over places and draws, with the 95 % interval of other places and other cases.

    By bootstrap: places are drawn, and for each of them one of the draws of its cases.
    """
    places = list(dict.fromkeys(row["place"] for row in rows))
    values = np.array([[row[what] for row in rows if row["place"] == place] for place in places])
    rng = np.random.default_rng(0)
    at = rng.integers(len(places), size=(2000, len(places)))
    means = values[at, rng.integers(values.shape[1], size=at.shape)].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{values.mean():{form}} ({low:{form}} to {high:{form}})"


def format_places(rows: list[dict[str, Any]], n: int) -> str:
    """Recall, precision and change with `n` cases, means over the draws, by place and method."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    table = [[f"place, {n} cases", "regions", *names]]
    for place in dict.fromkeys(row["place"] for row in rows):
        cells: list[str] = []
        for name in names:
            of = [r for r in rows if (r["method"], r["place"], r["cases"]) == (name, place, n)]
            means = [np.mean([row[k] for row in of]) for k in ("recall", "precision", "change")]
            cells.append("{:.2f} {:.2f} {:+.3f}".format(*means))
        table.append([place, str(of[0]["regions"]), *cells])
    return text_table(table)


if __name__ == "__main__":
    frame.run(main)
