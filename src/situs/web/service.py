"""What the routes share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from situs.labeler import Labeler
from situs.report.html import read_texts
from situs.web.limits import Limits
from situs.web.security import Access
from situs.web.store import Store
from situs.web.workers import Workers

__all__ = ["Service"]


@dataclass(eq=False)
class Service:
    """What the routes share.

    Attributes:
        labeler: Answers.
        access: Who may ask.
        limits: How much.
        folder: Private; uploads lie in it until they are read.
        texts: The words of reports.
    """

    labeler: Labeler
    access: Access
    limits: Limits
    folder: Path
    texts: dict[str, str] = field(default_factory=read_texts)

    def __post_init__(self) -> None:
        self.store = Store(self.limits)
        self.workers = Workers(self.limits)
        self.uploads = 0
