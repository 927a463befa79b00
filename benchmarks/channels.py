"""What the channels of the views are worth: a bundle asked about the same slices with some of them hidden.

    python benchmarks/channels.py COHORT [--bundle DIR] [--patient NAME ...] [--scans N] [--json FILE]

COHORT is a rendered cohort (``situs synth``). Name the patients that the bundle was not trained on. In
training these channels are hidden now and then (`situs.learn.augment`), so the bundle knows views without
them: what is measured is what a view says without the channel, not what a network would learn that never had
it. Printed: macro F1 over slices, and how many of the slices of each kind of lesion are right.

slices around   below and above, black as on a single slice
mirrored        the other hemisphere, black as where no midplane is found
unfilled        what is under the regions, filled gray as in the other channels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import frame
import numpy as np

from situs.bundle import read_bundle
from situs.cohort.answers import answer_slices
from situs.cohort.manifest import read_manifest
from situs.cohort.scores import count_confusions, macro_f1
from situs.cohort.slices import Slices, open_slices
from situs.errors import InputError
from situs.records import take_rows
from situs.tables import text_table
from situs.views import MIRRORED, OTHER_SLICES, UNFILLED, ViewSpec

_MAX_SLICES = 2  # of a region; neighbouring ones are alike
_BATCH = 256


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    bundle = read_bundle(options.bundle)
    rows, report = read_manifest(options.cohort), frame.ProgressLine()
    if unknown := sorted(set(options.patient) - {row.patient for row in rows}):
        raise InputError(f"--patient: {options.cohort} has no patient {', '.join(unknown)}")
    slices = open_slices(options.cohort, bundle.spec, _MAX_SLICES, progress=report)
    asked = np.isin(slices.patient, options.patient or np.unique(slices.patient))
    asked &= np.isin(slices.scan, np.unique(slices.scan[asked])[: options.scans])
    chosen = np.flatnonzero(asked)
    truth, kinds = slices.site[chosen], np.array([rows[n].kind for n in slices.row[chosen]])
    result: dict[str, Any] = {}
    for name, channels in _hidden(bundle.spec).items():
        predicted = np.concatenate(
            [
                answer_slices(bundle, _hide(slices, part, channels), np.arange(len(part))).relation.argmax(1)
                for part in np.split(chosen, range(_BATCH, len(chosen), _BATCH))
            ]
        )
        f1 = float(macro_f1(count_confusions(truth, [predicted], np.zeros(len(truth)))[0, 0]))
        right = {kind: float((predicted == truth)[kinds == kind].mean()) for kind in np.unique(kinds)}
        result[name] = {"macro F1": f1, **right}
        report(f"without {name}", len(result), len(_hidden(bundle.spec)))
    columns = list(result["nothing"])
    counts = {kind: str((kinds == kind).sum()) for kind in columns[1:]}
    table = [["hidden", *columns], ["n", str(len(chosen)), *(counts[kind] for kind in columns[1:])]]
    table += [[name, *(f"{found[column]:.3f}" for column in columns)] for name, found in result.items()]
    print(text_table(table))
    frame.write_json(options.json, {"slices": len(chosen), **result})
    return 0


def _hidden(spec: ViewSpec) -> dict[str, list[str]]:
    """What is hidden, by name: lists of channels that the views have."""
    around = [spec.channels[c] for where in OTHER_SLICES for c in spec.channels_of(where)]
    groups = {"slices around": around, "mirrored": [MIRRORED], "unfilled": [UNFILLED]}
    known = {name: channels for name, channels in groups.items() if set(channels) <= set(spec.channels)}
    return {"nothing": [], **known, "all of these": [c for channels in known.values() for c in channels]}


def _hide(slices: Slices, part: np.ndarray[Any, Any], channels: Sequence[str]) -> Slices:
    """Some examples in memory, without some channels."""
    some, names = take_rows(slices, part), slices.spec.channels
    views = some.global_view.copy(), some.local_view.copy()
    for view in views:
        for name in channels:
            c = names.index(name)
            view[:, c] = view[:, names.index("brain")] if name == UNFILLED else 0
    return replace(some, global_view=views[0], local_view=views[1])


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_argument("cohort", type=Path, help="a rendered cohort")
    parser.add_bundle()
    parser.add_argument(
        "--patient", action="append", default=[], metavar="NAME", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--scans", type=frame.positive, default=100, help="at most so many scans (default: 100)"
    )
    parser.add_json()
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
