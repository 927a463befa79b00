"""A real archive: Orthanc with its DICOMweb plugin, on a loopback port with a configuration of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "situs", "not-a-secret"


class Orthanc:
    """Starts in a folder, which keeps what is stored; `stop` and `start` restart it."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("Orthanc") is None or not PLUGIN.exists():
            pytest.skip("Orthanc is not installed (Debian: apt-get install orthanc orthanc-dicomweb)")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/dicom-web"
        self._root = f"http://127.0.0.1:{port}"
        self._settings = folder / "orthanc.json"
        self._log = folder / "orthanc.log"
        settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": port,
            "RemoteAccessAllowed": False,
            "DicomServerEnabled": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        self._settings.write_text(json.dumps(settings))
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(["Orthanc", str(self._settings)], stdout=log, stderr=log)
        until = time.monotonic() + 60
        while True:
            try:
                self._get("/system")
                return
            except (urllib.error.URLError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"Orthanc does not start: {self._log.read_text()[-500:]}")
                time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def store(self, path: Path) -> None:
        """Store a DICOM file, or all files of a folder."""
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            self._get("/instances", file.read_bytes())

    def count(self, modality: str) -> int:
        """How many objects of a modality there are."""
        series = [self._get(f"/series/{series}") for series in self._get("/series")]
        return sum(len(s["Instances"]) for s in series if s["MainDicomTags"]["Modality"] == modality)

    def only(self, modality: str) -> bytes:
        """The file of the one object of a modality."""
        (instance,) = [
            instance
            for series in self._get("/series")
            for s in [self._get(f"/series/{series}")]
            if s["MainDicomTags"]["Modality"] == modality
            for instance in s["Instances"]
        ]
        with self._open(f"/instances/{instance}/file") as answer:
            return answer.read()

    def _get(self, path: str, data: bytes | None = None):
        with self._open(path, data) as answer:
            return json.load(answer)

    def _open(self, path: str, data: bytes | None = None):
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, self._root, USER, PASSWORD)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPBasicAuthHandler(passwords)
        )
        return opener.open(urllib.request.Request(self._root + path, data), timeout=60)
