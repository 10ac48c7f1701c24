import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from tests.data.official_archives import WNIDS, jpeg, tiny_imagenet_members, zipped

Refused = Callable[[str, Path], str]
FOLDER = "tiny-imagenet-200"
FIRST = f"{FOLDER}/train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG"
COLOURFUL = f"{FOLDER}/train/{WNIDS[0]}/images/{WNIDS[0]}_9.JPEG"
ANNOTATIONS = f"{FOLDER}/val/val_annotations.txt"
MEMBERS = tiny_imagenet_members()
PIXELS = np.zeros((3, 64, 64), np.uint8)


def text(name: str) -> str:
    return MEMBERS[f"{FOLDER}/{name}"].decode()


def with_size(content: bytes, width: int, height: int) -> bytes:
    """Return a JPEG that declares another size."""
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


def as_png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (64, 64)).save(content, "PNG")
    return content.getvalue()


CASES: dict[str, dict[str, bytes | None]] = {
    f"has a bad image '{COLOURFUL}': image file is truncated": {COLOURFUL: MEMBERS[COLOURFUL][:-100]},
    f"has a bad image '{COLOURFUL}': Truncated File Read": {COLOURFUL: MEMBERS[COLOURFUL][:50]},
    f"has a bad image '{FIRST}': cannot identify image file": {FIRST: as_png()},
    "cannot identify image file": {FIRST: b""},
    "it declares 65 x 64 pixels, not 64 x 64": {FIRST: jpeg(np.zeros((3, 64, 65), np.uint8))},
    "it declares 64 x 32 pixels, not 64 x 64": {FIRST: jpeg(PIXELS[:, :32])},
    "Image size (100000000 pixels) exceeds limit": {FIRST: with_size(MEMBERS[FIRST], 10_000, 10_000)},
    "Image size (3600000000 pixels) exceeds limit": {FIRST: with_size(MEMBERS[FIRST], 60_000, 60_000)},
    f"declares 262145 bytes for '{FIRST}'. Expected: at most 262144.": {FIRST: bytes(262_145)},
    "lists 199 classes in wnids.txt. Expected: 200.": {f"{FOLDER}/wnids.txt": text("wnids.txt")[10:].encode()},
    "lists 201 classes in wnids.txt": {f"{FOLDER}/wnids.txt": (text("wnids.txt") + "n99999999\n").encode()},
    "lists '../x' in wnids.txt. Expected: WordNet": {f"{FOLDER}/wnids.txt": (text("wnids.txt") + "../x\n").encode()},
    f"has no member '{FOLDER}/wnids.txt'": {f"{FOLDER}/wnids.txt": None},
    f"has no member '{ANNOTATIONS}'": {ANNOTATIONS: None},
    f"has no member '{FOLDER}/words.txt'": {f"{FOLDER}/words.txt": None},
    f"has no words for class '{WNIDS[0]}'": {f"{FOLDER}/words.txt": text("words.txt").partition("\n")[2].encode()},
    "has a class named 'n10000000 x": {
        f"{FOLDER}/words.txt": text("words.txt").replace("thing", "x\0\x1b[2J").encode()
    },
    "has images of class 'n99999999'": {f"{FOLDER}/train/n99999999/images/n99999999_0.JPEG": jpeg(PIXELS)},
    "has an image at 'tiny-imagenet-200/train/x.JPEG'": {f"{FOLDER}/train/x.JPEG": jpeg(PIXELS)},
    "has no training example of class 5": {name: None for name in MEMBERS if f"train/{WNIDS[5]}/" in name},
    "than it has (tiny-imagenet-200/val/images/val_3.JPEG)": {f"{FOLDER}/val/images/val_3.JPEG": None},
    "than it has (tiny-imagenet-200/val/images/val_999.JPEG)": {f"{FOLDER}/val/images/val_999.JPEG": jpeg(PIXELS)},
    "than it has (one of them twice)": {
        ANNOTATIONS: (text("val/val_annotations.txt") * 2).encode(),
    },
    "has a line 'val_x.JPEG' in val_annotations.txt": {ANNOTATIONS: b"val_x.JPEG\n"},
    "has a line 'val_0.JPEG\\tn99999999' in val_annotations.txt": {ANNOTATIONS: b"val_0.JPEG\tn99999999\n"},
    "has a line '../../x.JPEG": {ANNOTATIONS: b"../../x.JPEG\t" + WNIDS[0].encode() + b"\n"},
    "is damaged or cut off: 'utf-8' codec": {ANNOTATIONS: b"\xff\xff\n"},
    "leads outside: '../../etc/cron.d/x'": {"../../etc/cron.d/x": b"x"},
    "leads outside: '/etc/passwd'": {"/etc/passwd": b"x"},
    "leads outside: 'tiny-imagenet-200/../../x'": {f"{FOLDER}/../../x": b"x"},
}


@pytest.mark.parametrize("message", CASES)
def test_what_is_not_in_the_format_is_refused(message: str, tmp_path: Path, refused: Refused) -> None:
    members = {name: content for name, content in (MEMBERS | CASES[message]).items() if content is not None}
    assert message in refused("tinyimagenet", zipped(tmp_path / "a.zip", members))


@pytest.mark.parametrize("name", [FIRST, f"{FOLDER}/words.txt", "bomb"])
def test_a_bomb_is_refused_before_it_is_inflated(name: str, tmp_path: Path, refused: Refused) -> None:
    path = zipped(tmp_path / "a.zip", MEMBERS | {name: bytes(100 << 20)}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    line = refused("tinyimagenet", path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert line.startswith(f"declares 104857600 bytes for '{name}' and stores ")
    assert peak_bytes < 20 << 20


def test_a_member_that_lies_about_its_size(tmp_path: Path, refused: Refused) -> None:
    """It declares 10,000 bytes and inflates to 100 MiB: no more than it declares is ever inflated."""
    bomb = bytes(100 << 20)
    content = zipped(tmp_path / "a.zip", MEMBERS | {FIRST: bomb}, zipfile.ZIP_DEFLATED).read_bytes()
    assert content.count(struct.pack("<I", len(bomb))) == 2  # before the member, and in the directory
    content = content.replace(struct.pack("<I", len(bomb)), struct.pack("<I", 200_000))
    stored = next(
        each.compress_size for each in zipfile.ZipFile(tmp_path / "a.zip").infolist() if each.filename == FIRST
    )
    content = content.replace(struct.pack("<I", stored), struct.pack("<I", 100_000))
    (tmp_path / "a.zip").write_bytes(content)
    tracemalloc.start()
    assert "is damaged or cut off: Bad CRC-32" in refused("tinyimagenet", tmp_path / "a.zip")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20 << 20


def test_an_encrypted_member_is_refused(tmp_path: Path, refused: Refused) -> None:
    path = zipped(tmp_path / "a.zip", MEMBERS)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert refused("tinyimagenet", path).startswith("has an encrypted member ")


def test_two_members_of_one_name_are_refused(tmp_path: Path, refused: Refused) -> None:
    path = zipped(tmp_path / "a.zip", MEMBERS)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(FIRST, jpeg(PIXELS))
    assert refused("tinyimagenet", path).startswith(f"has two members '{FIRST}'")


def test_any_truncation_is_seen(tmp_path: Path, refused: Refused) -> None:
    path = zipped(tmp_path / "a.zip", MEMBERS)
    whole = path.read_bytes()
    for size in (0, 1, 21, 1000, len(whole) // 2, len(whole) - 22, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "damaged or cut off" in refused("tinyimagenet", path)
    directory = struct.unpack("<I", whole[-10:-6])[0]
    path.write_bytes(whole[: directory // 2] + whole[directory:])  # the end is there, the middle is not
    assert "damaged or cut off" in refused("tinyimagenet", path)


def test_a_directory_that_is_too_long_is_not_read(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "a.zip"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 100 << 20, 0, 0)
    with open(path, "wb") as file:
        file.truncate(100 << 20)  # holes: it takes no room
        file.seek(100 << 20)
        file.write(end)
    assert "a header of 104857600 bytes" in refused("tinyimagenet", path)


@pytest.mark.parametrize("seed", range(20))
def test_bytes_that_were_changed_are_refused_or_read(seed: int, tmp_path: Path, refused: Refused) -> None:
    rng = random.Random(seed)
    content = bytearray(zipped(tmp_path / "a.zip", MEMBERS).read_bytes())
    directory = content.index(b"PK\1\2")
    for _ in range(3):
        content[rng.randrange(directory, len(content))] = rng.randrange(256)
    (tmp_path / "a.zip").write_bytes(content)
    try:
        refused("tinyimagenet", tmp_path / "a.zip")
    except pytest.fail.Exception:  # it was taken: what was changed says nothing about an image
        assert len(data.read_dataset(tmp_path / "out.h5").splits["test"]) == 200


def test_unlisted_files_do_no_harm(tmp_path: Path) -> None:
    extra = {"__MACOSX/x": b"x", f"{FOLDER}/.DS_Store": b"x", f"{FOLDER}/test/": b"", f"{FOLDER}/train/": b""}
    contents = []
    for number, members in enumerate((MEMBERS, MEMBERS | extra)):
        source = zipped(tmp_path / f"{number}.zip", members)
        out = tmp_path / f"{number}.h5"
        data.prepare("tinyimagenet", source, out, tell=lambda *_: None, allow_other=True)
        contents.append(data.read_dataset(out).sha256)
    assert contents[0] == contents[1]


def test_odd_metadata_and_odd_words_do_no_harm(tmp_path: Path) -> None:
    content = MEMBERS[COLOURFUL]
    broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x1a\x01\x05\0\xff\0\0\0\0\xff\xff\xff"
    exif = b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken
    words = MEMBERS[f"{FOLDER}/words.txt"].replace(b"thing", b"cr\xeape", 1)  # latin-1
    shas = []
    for number, changed in enumerate(({}, {COLOURFUL: content[:2] + exif + content[2:], f"{FOLDER}/words.txt": words})):
        source, out = zipped(tmp_path / f"{number}.zip", MEMBERS | changed), tmp_path / f"{number}.h5"
        data.prepare("tinyimagenet", source, out, tell=lambda *_: None, allow_other=True)
        shas.append(data.read_dataset(out).sha256)
    assert shas[0] == shas[1]


def test_grey_images_have_three_equal_channels(tmp_path: Path) -> None:
    source = zipped(tmp_path / "a.zip", MEMBERS)
    data.prepare("tinyimagenet", source, tmp_path / "o.h5", tell=lambda *_: None, allow_other=True)
    test = data.read_dataset(tmp_path / "o.h5").splits["test"].inputs
    is_grey = (test == test[:, :1]).all(axis=(1, 2, 3))
    assert np.flatnonzero(is_grey).tolist() == list(range(0, 200, 7))
