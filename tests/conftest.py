"""What all tests share."""

import os
import shutil
from tempfile import mkdtemp

# Before numpy and torch are imported: the tests' arrays are too small for more than one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config):
    """Make a folder for what is made once in a run; the processes of pytest-xdist inherit its name."""
    if "SITUS_TESTS_FOLDER" not in os.environ:
        folder = os.environ["SITUS_TESTS_FOLDER"] = mkdtemp(prefix="situs-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder))
