"""Small scans, heads, cohorts and bundles that several tests share."""

from pathlib import Path

REPO = Path(__file__).parents[2]
SHARED = REPO.parent / "shared"
