"""JPEGs from an archive that nobody trusts: of one size only, decoded by Pillow, in colour."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from data.hdf5 import FileRefused, refusal


def decoder() -> str:
    """Return which libraries decode: another one may round pixels differently."""
    turbo = features.version("libjpeg_turbo")
    return f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"


def decode(
    path: Path, names: Sequence[str], contents: Sequence[bytes], height: int, width: int
) -> npt.NDArray[np.uint8]:
    """Return images (n, 3, height, width); grey ones have three equal channels.

    Args:
        path: of the archive, for messages.
        names: of the members.
        contents: of the members.
        height: that each image must declare before anything of it is decoded.
        width: the same.

    Raises:
        FileRefused: no JPEG, cut off, or of another size; the member is named.

    Cost: about 0.12 ms for 64 x 64 pixels.
    """
    images = np.empty((len(contents), 3, height, width), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, which change no pixel
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # of 100 million pixels Pillow only warns
        for index, (name, content) in enumerate(zip(names, contents, strict=True)):
            try:
                images[index] = _decode(content, (width, height)).transpose(2, 0, 1)
            except Exception as error:  # what plugins raise for damaged images is no short list
                raise _refused(path, name, error) from error
    return images


def _decode(content: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
        if image.size != size:
            raise ValueError(f"it declares {image.size[0]} x {image.size[1]} pixels, not {size[0]} x {size[1]}")
        return np.asarray(image.convert("RGB"))


def _refused(path: Path, name: str, error: Exception) -> FileRefused:
    said = str(error).strip().rstrip(".").partition(" <")[0] or type(error).__name__
    return refusal(path, f"has a bad image {name!r}: {said}", "whole JPEGs of the published size", "Fetch it again.")
