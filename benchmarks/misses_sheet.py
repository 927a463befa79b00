"""Draw the real lesions and regions that the bundle names wrongly, with what it says and what readers say.

    python benchmarks/misses_sheet.py OUT.png [--data DIR] [--bundle DIR]

Asked as `real.py` asks. Every miss stands twice: as it is, and outlined. The patient's left is on the right.
"""

from __future__ import annotations

from pathlib import Path

import frame
import numpy as np
from cases import Answer, Case, answer_cases, read_cases
from kinds_sheet import Picture, draw_region, titled
from PIL import Image
from real import PARTS

from situs.anatomy import SITES
from situs.files import replacing
from situs.io import read_rois, read_volume
from situs.labeler import Labeler

ACROSS = 3


def main(args: list[str] | None = None) -> int:
    parser = frame.Parser(__doc__)
    parser.add_argument("out", type=Path)
    parser.add_data()
    parser.add_bundle()
    options = parser.parse_args(args)
    labeler, tiles = Labeler.load(options.bundle), list[Picture]()
    for part in PARTS:
        frame.need_file("--data", options.data / f"{part}.csv", "the folder with the real scans")
        cases = read_cases(options.data / f"{part}.csv")
        answers = answer_cases(labeler, options.data, cases, together=part == "lesions")
        for case, answer in zip(cases, answers, strict=True):
            if not answer.is_right(case) or answer.side != case.side:
                tiles.append(_tile(options.data, case, answer))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % ACROSS)
    rows = [np.concatenate(tiles[n : n + ACROSS], axis=1) for n in range(0, len(tiles), ACROSS)]
    with replacing(options.out) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, format="PNG", optimize=True)
    return 0


def _tile(data: Path, case: Case, answer: Answer) -> Picture:
    volume = read_volume(data / case.scan)
    roi = next(roi for roi in read_rois(data / case.roi, volume) if roi.value == case.value)
    truth = SITES.names[case.acceptable[0]] + (" or others" if len(case.acceptable) > 1 else "")
    said = SITES.names[answer.site] if answer.site else "nothing"
    sure = "" if answer.sure else " ?"
    picture = titled(f"says {said}, {answer.side}{sure}", draw_region(volume, roi))
    return titled(f"is {truth}, {case.side}", picture)


if __name__ == "__main__":
    frame.run(main)
