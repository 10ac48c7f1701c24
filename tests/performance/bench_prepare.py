"""`espalier data prepare` on an archive of TinyImageNet's size: images per second and peak memory. Run: make benchmark

The archive is generated: the published one is not ours to ship. Its images are smooth random fields with some grain, of
about the published size once they are JPEGs. The command runs in a process of its own, beside which nothing else is
written.
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.performance.interleaved import Result, environment

NUM_CLASSES, PER_CLASS, NUM_VALIDATION, SIDE = 200, 500, 10_000, 64
FOLDER = "tiny-imagenet-200"
VARIETY = 2_000  # different images; each is stored many times, under other names
GREY_EVERY = 50
COLUMNS = ["", "images/s", "images per processor second", "peak MiB", "archive MiB", "file MiB"]
TITLE = "Preparing TinyImageNet."
TEXT = (
    "`espalier data prepare tinyimagenet` on a generated archive in the official layout: 100,000 and 10,000 JPEGs of "
    "64 x 64 pixels, smooth random fields with grain, one in fifty grey. Time is that of the whole command, which uses "
    "one processor, on a machine that others used too; the peak is that of its process."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate the archive, prepare it, and write results/prepare.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--per-class", type=int, default=PER_CLASS)
    parser.add_argument("--smoke", action="store_true", help="write nothing")
    chosen = parser.parse_args(arguments)
    num_validation = NUM_VALIDATION * chosen.per_class // PER_CLASS
    with tempfile.TemporaryDirectory(prefix="espalier-prepare-") as place:
        archive = write_archive(Path(place) / f"{FOLDER}.zip", chosen.per_class, num_validation)
        found = prepare(archive, Path(place) / "tinyimagenet.h5")
    num_images = NUM_CLASSES * chosen.per_class + num_validation
    found |= {"num_images": num_images}
    rows = [row(f"{num_images:,} JPEGs", found)]
    print(*rows[0], sep=" | ", flush=True)
    if not chosen.smoke:
        where = environment(["pillow", "h5py", "numpy"], 1)
        Result("prepare", TITLE, TEXT, COLUMNS, rows, where, found).write()


def write_archive(path: Path, per_class: int, num_validation: int) -> Path:
    """Write a zip file in the official layout."""
    contents = list(jpegs())
    wnids = [f"n{10_000_000 + number:08}" for number in range(NUM_CLASSES)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{FOLDER}/wnids.txt", "".join(f"{wnid}\n" for wnid in wnids))
        archive.writestr(f"{FOLDER}/words.txt", "".join(f"{wnid}\tsomething\n" for wnid in wnids))
        for target, wnid in enumerate(wnids):
            for number in range(per_class):
                content = contents[(target * per_class + number) % VARIETY]
                archive.writestr(f"{FOLDER}/train/{wnid}/images/{wnid}_{number}.JPEG", content)
        lines = [
            f"val_{number}.JPEG\t{wnids[number % NUM_CLASSES]}\t0\t0\t63\t63\n" for number in range(num_validation)
        ]
        archive.writestr(f"{FOLDER}/val/val_annotations.txt", "".join(lines))
        for number in range(num_validation):
            archive.writestr(f"{FOLDER}/val/images/val_{number}.JPEG", contents[number % VARIETY])
    return path


def jpegs() -> Iterator[bytes]:
    """Yield different JPEGs of about 2 kB."""
    rng = np.random.default_rng(0)
    for number in range(VARIETY):
        image = Image.fromarray(_pixels(rng))
        content = io.BytesIO()
        (image.convert("L") if number % GREY_EVERY == 0 else image).save(content, "JPEG", quality=75)
        yield content.getvalue()


def _pixels(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)
    return np.clip(smooth + rng.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)


def prepare(archive: Path, out: Path) -> dict[str, Any]:
    """Run the command in a process of its own; return its seconds, its peak and the sizes, in bytes.

    Raises:
        CalledProcessError: it failed; its own message is on stderr.
    """
    command = [sys.executable, "-m", "espalier", "data", "prepare", "tinyimagenet", "--allow-other"]
    begun_s = time.monotonic()
    process = subprocess.Popen([*command, "--from", str(archive), "--out", str(out)])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun_s
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen has not seen it end
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    with h5py.File(out) as file:
        sizes = {name: len(file[name]["targets"]) for name in ("train", "validation", "test")}
    return {
        "seconds": seconds,
        "processor_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": _peak_bytes(usage),
        "archive_bytes": archive.stat().st_size,
        "file_bytes": out.stat().st_size,
        "num_examples": sizes,
    }


def _peak_bytes(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * 1024  # Linux counts KiB


def row(label: str, found: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    sizes = [f"{found[key] / 2**20:,.0f}" for key in ("peak_bytes", "archive_bytes", "file_bytes")]
    rates = [f"{found['num_images'] / found[key]:,.0f}" for key in ("seconds", "processor_s")]
    return [label, *rates, *sizes]


if __name__ == "__main__":
    main()
