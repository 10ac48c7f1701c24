"""Small archives in exactly the official layouts: few images per class, the same bytes every time."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Images = npt.NDArray[np.uint8]
Targets = npt.NDArray[np.int64]
NUM_CLASSES = {"cifar10": 10, "cifar100": 100, "mnist": 10, "fashionmnist": 10, "tinyimagenet": 200}
PER_CLASS = {"train": 3, "test": 1}
WNIDS = tuple(f"n{10_000_000 + 37 * number:08}" for number in range(200))
GREY_EVERY = 7  # so many of TinyImageNet's images are stored in grey, as some of the official ones are


def examples(name: str, split: str, per_class: int | None = None) -> tuple[Images, Targets]:
    """Return smooth images and class numbers in a mixed order, those that the archives below hold."""
    rng = np.random.default_rng([len(name), ord(name[0]), split == "train"])
    num_classes = NUM_CLASSES[name]
    targets = rng.permutation(np.repeat(np.arange(num_classes), per_class or PER_CLASS[split]))
    channels, side = {"tinyimagenet": (3, 64), "mnist": (1, 28), "fashionmnist": (1, 28)}.get(name, (3, 32))
    coarse = rng.integers(0, 256, (len(targets), channels, 4, 4), dtype=np.uint8)
    repeat = side // 4
    return coarse.repeat(repeat, axis=2).repeat(repeat, axis=3), targets


def tar_gz(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write members into a tar.gz, after the folder that holds them."""
    with gzip.GzipFile(path, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        folder = tarfile.TarInfo(next(iter(members)).partition("/")[0])
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def records(images: Images, targets: Targets, label_bytes: int = 1) -> bytes:
    """Return CIFAR's records; of two label bytes the first, the coarse label, is 19 throughout."""
    labels = np.full((len(targets), label_bytes), 19, np.uint8)
    labels[:, -1] = targets
    return np.concatenate([labels, images.reshape(len(images), -1)], axis=1).tobytes()


def cifar10_members() -> dict[str, bytes]:
    folder = "cifar-10-batches-bin"
    images, targets = examples("cifar10", "train")
    found = {f"{folder}/batches.meta.txt": "".join(f"class{number}\n" for number in range(10)).encode() + b"\n"}
    # The official archive does not list its batches in order.
    for number in (2, 1, 5, 3, 4):
        part = slice(6 * (number - 1), 6 * number)
        found[f"{folder}/data_batch_{number}.bin"] = records(images[part], targets[part])
    found[f"{folder}/readme.html"] = b"<html></html>"
    found[f"{folder}/test_batch.bin"] = records(*examples("cifar10", "test"))
    return found


def cifar100_members() -> dict[str, bytes]:
    folder = "cifar-100-binary"
    fine = "".join(f"fine{number}\n" for number in range(100)).encode()
    return {
        f"{folder}/fine_label_names.txt": fine,
        f"{folder}/coarse_label_names.txt": b"".join(b"coarse%d\n" % number for number in range(20)),
        f"{folder}/test.bin": records(*examples("cifar100", "test"), label_bytes=2),
        f"{folder}/train.bin": records(*examples("cifar100", "train"), label_bytes=2),
    }


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def idx_files(name: str) -> dict[str, bytes]:
    found = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, targets = examples(name, split)
        found[f"{prefix}-images-idx3-ubyte.gz"] = idx(images[:, 0])
        found[f"{prefix}-labels-idx1-ubyte.gz"] = idx(targets.astype(np.uint8))
    return found


def jpeg(pixels: Images, grey: bool = False) -> bytes:
    """Return pixels (3, height, width) as a JPEG."""
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    content = io.BytesIO()
    (image.convert("L") if grey else image).save(content, "JPEG", quality=90)
    return content.getvalue()


def tiny_imagenet_members() -> dict[str, bytes]:
    return dict(_tiny_imagenet_members())


@cache
def _tiny_imagenet_members() -> dict[str, bytes]:
    folder = "tiny-imagenet-200"
    found = {
        f"{folder}/wnids.txt": "".join(f"{wnid}\n" for wnid in reversed(WNIDS)).encode(),
        f"{folder}/words.txt": "".join(f"{wnid}\tthing {wnid[-3:]}, object\n" for wnid in WNIDS).encode(),
    }
    images, targets = examples("tinyimagenet", "train")
    order = np.argsort(targets, kind="stable")
    for place, index in enumerate(order):
        wnid, number = WNIDS[targets[index]], place % PER_CLASS["train"]
        content = jpeg(images[index], grey=place % GREY_EVERY == 0)
        found[f"{folder}/train/{wnid}/images/{wnid}_{number * 9}.JPEG"] = content  # _0, _9, _18: no text order
        if number == 0:
            found[f"{folder}/train/{wnid}/{wnid}_boxes.txt"] = b"x_0.JPEG\t0\t0\t63\t63\n"
    images, targets = examples("tinyimagenet", "test")
    lines = "".join(f"val_{place}.JPEG\t{WNIDS[target]}\t0\t32\t44\t62\n" for place, target in enumerate(targets))
    found[f"{folder}/val/val_annotations.txt"] = lines.encode()
    for place, image in enumerate(images):
        found[f"{folder}/val/images/val_{place}.JPEG"] = jpeg(image, grey=place % GREY_EVERY == 0)
    found[f"{folder}/test/images/test_0.JPEG"] = jpeg(images[0])
    return found


def zipped(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return path


def folder_of(path: Path, files: Mapping[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "cifar10": lambda folder: tar_gz(folder / "cifar-10-binary.tar.gz", cifar10_members()),
    "cifar100": lambda folder: tar_gz(folder / "cifar-100-binary.tar.gz", cifar100_members()),
    "mnist": lambda folder: folder_of(folder / "mnist", idx_files("mnist")),
    "fashionmnist": lambda folder: folder_of(folder / "fashionmnist", idx_files("fashionmnist")),
    "tinyimagenet": lambda folder: zipped(folder / "tiny-imagenet-200.zip", tiny_imagenet_members()),
}


def write_archive(name: str, folder: Path) -> Path:
    """Write a small archive of a data set; return what --from takes."""
    return WRITERS[name](folder)
