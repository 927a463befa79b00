"""The process whose children run commands: ``python -m kill.child NAME``, see `kill.commands`.

It imports and prepares once what the commands of that name need, and forks for each command. So a command
costs its own work only.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import struct
import sys
import traceback
from pathlib import Path

# The changes of a disk that the interpreter reports, and which of their arguments are paths and folders.
CHANGES = {
    "os.mkdir": (0, 2),
    "os.rename": (0, 2),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.truncate": (0, None),
}


def main() -> None:
    """Read one JSON line for each command from standard input; answer with its number, then its end."""
    replies = os.fdopen(os.dup(1), "w")
    PREPARATIONS[sys.argv[1]]()
    counters: dict[int, mmap.mmap] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "args" in order:
            counter = mmap.mmap(-1, 8)
            number = os.fork()
            if not number:
                os._exit(run(order, counter))
            counters[number] = counter
            reply = {"number": number}
        else:
            number, status = os.waitpid(order["wait"], os.WUNTRACED)
            code = None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
            reply = {"code": code, "changes": struct.unpack("q", counters[number][:])[0]}
        print(json.dumps(reply), file=replies, flush=True)


def run(order: dict, counter: mmap.mmap) -> int:
    """Run a command in this process; its exit code."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(log, 2)
    try:
        os.chdir(order["folder"])
        if order["read_only"]:
            obey_permissions()
        if order["bytes"] is not None:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["bytes"], order["bytes"]))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if order["die"] else signal.SIG_IGN)
        watch(order["folder"], counter, order["moment"], getattr(signal, order["signal"]))
        from situs.cli import main as situs

        code = situs(order["args"])
        sys.stderr.flush()
        return code
    except BaseException:
        traceback.print_exc()
        return 99


def watch(folder: str, counter: mmap.mmap, moment: int | None, sent: int) -> None:
    """Count the changes of the disk in a folder. Before number `moment` this process gets a signal."""

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            changes = bool(args[2] & (os.O_WRONLY | os.O_RDWR)) and _lies_in(args[0], folder)
        elif event in CHANGES:
            path, folder_at = CHANGES[event]
            beside = folder_at is not None and isinstance(args[folder_at], int) and args[folder_at] >= 0
            changes = beside or _lies_in(args[path], folder)
        else:
            return
        if changes:
            (n,) = struct.unpack("q", counter[:])
            counter[:] = struct.pack("q", n + 1)
            if n == moment:
                os.kill(os.getpid(), sent)

    sys.addaudithook(hook)


def _lies_in(path: object, folder: str) -> bool:
    return not isinstance(path, int) and Path(os.fsdecode(path)).absolute().is_relative_to(folder)


def obey_permissions() -> None:
    """Root too is bound by the permissions of files from here on."""
    if os.geteuid():
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
    data = ctypes.create_string_buffer(24)
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    words = list(struct.unpack("6I", data.raw))
    words[0] &= ~0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, of the effective ones
    if libc.capset(header, struct.pack("6I", *words)):
        raise OSError(ctypes.get_errno(), "capset")


def prepare_label() -> None:
    """What labels a scan or a batch of them, and changes a bundle."""
    import situs.batch
    import situs.cli
    import situs.cohort.calibrate
    import situs.cohort.references
    import situs.io
    import situs.labeler
    import situs.report.picture  # noqa: F401


def prepare_synth() -> None:
    """Renders scans of small heads on a small grid."""
    from phantoms.small_head import draw_small_plan, mirrored, small_head

    import situs.synth.render  # noqa: F401
    from situs.synth import cohort, pose
    from situs.synth.lesions import LesionGrower

    heads = small_head("head_a"), mirrored(small_head("head_b"))
    growers = dict(zip(("head_a.nii.gz", "head_b.nii.gz"), map(LesionGrower, heads), strict=True))
    cohort._grower = lambda path, *settings: growers[path.name]
    cohort._BATCH = 2
    pose.draw_plan = draw_small_plan


def prepare_train() -> None:
    """Trains a tiny network for a few steps. Its bundle holds plain weights, no ONNX."""
    from dataclasses import replace

    from phantoms.tiny_recipe import SHORT, narrow_basenet
    from phantoms.toy_bundle import CONTRACT

    from situs.bundle import BASENET_FILE, RELATION_FILE
    from situs.bundle.write import ExportedNetworks, write_bundle
    from situs.learn import basenet, recipe, train

    def weights(network) -> bytes:
        return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())

    def export(basenet, relation, references, recipe, facts, out, **_):
        files = {BASENET_FILE: weights(basenet), RELATION_FILE: weights(relation)}
        networks = ExportedNetworks(files, CONTRACT, recipe.spec, recipe.n_neighbors)
        return write_bundle(out, networks, references, recipe=recipe.to_dict(), training={"data": ""})

    recipe.RECIPES["compact"] = replace(SHORT, n_references=3, n_targets=10)
    basenet.compact_basenet = narrow_basenet
    train.export_bundle = export


PREPARATIONS = {"label": prepare_label, "synth": prepare_synth, "train": prepare_train}

if __name__ == "__main__":
    main()
