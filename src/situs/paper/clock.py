"""How long the stages of a run take, over all the times that it was stopped and went on."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from situs.errors import OutputError
from situs.files import write_file
from situs.progress import Progress

__all__ = ["StageClock"]

_SECONDS_A_SAVE = 30


class StageClock:
    """Counts the CPU time of this process and the steps of every stage by its progress; keeps them in a file.

    The time between two reports of a stage belongs to the steps between them. What a kill takes away is lost
    with its steps, so the time of a step stays right.

    Args:
        path: The file, JSON. It is read if it is there.

    Raises:
        OutputError: If the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
            # By seed, stage and number of steps: a stage may have several parts.
            self._parts = {(p["seed"], p["stage"], p["total"]): (p["cpu_s"], p["steps"]) for p in found}
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path}: is damaged: delete it") from error
        self._last: tuple[tuple[int, str, int], int] | None = None
        self._looked, self._saved = time.process_time(), time.monotonic()

    def of_seed(self, seed: int, progress: Progress) -> Progress:
        """Progress of one seed that is counted, and passed on with the seed's number.

        Its calls raise OutputError if the file cannot be written.
        """

        def report(stage: str, done: int, total: int, message: str = "", /) -> None:
            self._count((seed, stage, total), done)
            progress(f"seed {seed}, {stage}", done, total, message)

        return report

    def _count(self, part: tuple[int, str, int], done: int) -> None:
        now = time.process_time()
        if self._last is not None and self._last[0] == part and done > self._last[1]:
            cpu_s, steps = self._parts.get(part, (0.0, 0))
            self._parts[part] = cpu_s + now - self._looked, steps + done - self._last[1]
        self._last, self._looked = (part, done), now
        if done == part[2] or time.monotonic() - self._saved > _SECONDS_A_SAVE:
            self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        parts: list[dict[str, Any]] = [
            {"seed": seed, "stage": stage, "total": total, "cpu_s": round(cpu_s, 2), "steps": steps}
            for (seed, stage, total), (cpu_s, steps) in self._parts.items()
        ]
        write_file(self._path, json.dumps(parts, indent=1).encode())

    def hours(self) -> dict[str, float]:
        """The CPU hours of each stage, the mean of the seeds that went through it."""
        by_stage: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for (seed, stage, total), (cpu_s, steps) in self._parts.items():
            by_stage[stage][seed] += cpu_s / steps * total / 3600
        return {stage: sum(of.values()) / len(of) for stage, of in by_stage.items()}
