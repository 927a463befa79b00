"""Many scans: a manifest in, one table of findings out.

The state of a batch is a folder of parts, one file for each row of the manifest, written by renaming. So a
batch that was stopped at any instant goes on where it was. The tables are made from the parts at the end, in
the manifest's order. ``docs/batch.md`` describes the files.
"""

from situs.batch.run import label_batch
from situs.batch.summary import Summary

__all__ = ["Summary", "label_batch"]
