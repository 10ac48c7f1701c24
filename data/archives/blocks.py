"""Decoded blocks beside the file that is being prepared, so that a killed command goes on where it stopped.

A block is one file: a SHA-256 of everything else about it, then class numbers, then pixels. Its name begins with the
identity of what it was decoded from, so blocks of another archive are never taken for its own.
"""

import contextlib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data.archives.official import Block, Part
from data.hdf5 import commit_bytes, refusal, sweep

VERSION = 1  # raise when the same archive is to give other numbers
_NAME = re.compile(r"[0-9a-f]{64}-(train|test)-[0-9]+-[0-9]+\.block")
_DIGEST_BYTES = hashlib.sha256().digest_size


class BlockFolder:
    """Blocks of one archive on their way to one file.

    Args:
        path: of the folder; it is made when the first block is saved.
        identity: 64 hexadecimal digits, of everything that the numbers depend on.
        image_shape: of one image.
    """

    def __init__(self, path: Path, identity: str, image_shape: tuple[int, ...]) -> None:
        self.path, self.image_shape = path, image_shape
        self._identity = identity

    def begin(self) -> None:
        """Remove what another archive has left, and what was cut off by a kill."""
        if self.path.is_dir():
            sweep(self.path)
            for path in self._blocks():
                if not path.name.startswith(self._identity):
                    path.unlink(missing_ok=True)

    def save(self, block: Block) -> None:
        """Commit a block.

        Raises:
            FileRefused: something else stands where the folder should, or nothing can be made there.
            OSError: it cannot be written.
        """
        try:
            self.path.mkdir(exist_ok=True)
        except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
            raise refusal(self.path, f"cannot be made: {error.strerror}", "a folder of ours", "Move it.") from error
        body = block.targets.astype("<i8").tobytes() + block.images.tobytes()
        commit_bytes(self._place(block.part), self._digest(block.part, body) + body)

    def load(self, part: Part) -> Block | None:
        """Return a block, or None where there is none or it is damaged."""
        try:
            content = self._place(part).read_bytes()
        except OSError:
            return None
        digest, body = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
        targets_bytes = 8 * part.size
        if len(body) != targets_bytes + part.size * int(np.prod(self.image_shape)):
            return None
        if digest != self._digest(part, body):
            return None
        targets = np.frombuffer(body[:targets_bytes], "<i8").astype(np.int64)
        images = np.frombuffer(body[targets_bytes:], np.uint8).reshape(part.size, *self.image_shape)
        return Block(part, images, targets)

    def remove(self) -> None:
        """Remove the folder and all blocks; a file that is none of ours stays, and the folder with it."""
        if not self.path.is_dir():
            return
        with contextlib.suppress(OSError):  # another process may be at it
            sweep(self.path)
            for path in self._blocks():
                path.unlink(missing_ok=True)
            self.path.rmdir()

    def _blocks(self) -> list[Path]:
        return [path for path in self.path.iterdir() if _NAME.fullmatch(path.name)]

    def _place(self, part: Part) -> Path:
        return self.path / f"{self._identity}-{part.split}-{part.first}-{part.size}.block"

    def _digest(self, part: Part, body: bytes | memoryview) -> bytes:
        digest = hashlib.sha256(f"{self._identity} {part}\n".encode())
        digest.update(body)
        return digest.digest()


def identities_in(folder: Path) -> set[str]:
    """Return the identities of the blocks in a folder.

    Raises:
        OSError: it cannot be read.
    """
    return {path.name.partition("-")[0] for path in folder.iterdir() if _NAME.fullmatch(path.name)}


def identity_of(name: str, md5: Mapping[str, str], decoder: str) -> str:
    """Return the identity of what blocks are decoded from: data set, archive, decoder and VERSION."""
    facts = [f"version {VERSION}", name, decoder, *(f"{file} {digest}" for file, digest in sorted(md5.items()))]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
