"""Good hashes for a bundle that a test has changed, so that its content is read and not its hash refused."""

import json

from situs.bundle.format import JSON_FILE, description_digest
from situs.files import digest


def sign(folder, change=lambda description: None):
    """Change the description and give it and all files good hashes again."""
    description = json.loads((folder / JSON_FILE).read_text())
    for name in description["files"]:
        data = (folder / name).read_bytes()
        description["files"][name] = {"sha256": digest(data), "bytes": len(data)}
    change(description)
    description["sha256"] = description_digest(description)
    (folder / JSON_FILE).write_text(json.dumps(description))
