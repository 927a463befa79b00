"""How much the server takes and holds. All of it has an end, so that no client can fill memory or disk."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """The limits of one server.

    Attributes:
        keep_s: Seconds that a scan is kept without a request for it.
        upload_bytes: Bytes of one request with files. A head CT of 512 x 512 x 512 voxels has half of it.
        json_bytes: Bytes of one request without files.
        files: Files of one request; a DICOM series has a few hundred.
        voxels: Voxels of a scan or mask.
        held_bytes: Bytes of all scans together.
        client_scans: Scans of one client.
        scans: Scans of all clients.
        results: Sets of regions of a scan, and findings of a scan, each; the newest are kept.
        workers: Scans that are read or labelled at the same time; the others wait.
        work_s: Seconds that the lesions of one request may take.
        waiting: Requests that may wait for a worker.
        uploads: Uploads at the same time.
        pause_s: Seconds that a client may take to send the next piece of a request.
        grace_s: Seconds after which a request must have come in at `least_rate`.
        least_rate: Bytes a second.
    """

    keep_s: float = 30 * 60
    upload_bytes: int = 512 * 2**20
    json_bytes: int = 2**20
    files: int = 5000
    voxels: int = 2**28
    held_bytes: int = 2 * 2**30
    client_scans: int = 8
    scans: int = 64
    results: int = 16
    workers: int = 2
    work_s: float = 300.0
    waiting: int = 64
    uploads: int = 16
    pause_s: float = 20.0
    grace_s: float = 30.0
    least_rate: int = 50_000
