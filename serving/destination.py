"""The directory that a bundle is brought to, which holds all of it or, to whoever looks for its manifest, none."""

import hashlib
import shutil
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from model.manifest import CHECKPOINT, MANIFEST, ONNX, REGISTRATION, BundleError, Reader, Registration, read_digests, sha256
from serving.failures import ContentError, DiskError

_INCOMING = ".incoming"


class Destination:
    """Files are received beside their place and moved there, the manifest last.

    The directory itself is not replaced: in a pod it is where a volume is mounted.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory, self._incoming, self._max_bytes = directory, directory / _INCOMING, max_bytes
        self._sizes: dict[str, int] = {}

    @property
    def received_bytes(self) -> int:
        """How much was brought."""
        return sum(self._sizes.values())

    def find(self, registration: Registration) -> str | None:
        """The sha256 of the manifest where this very version lies there, whole: nothing need be asked for then.

        A version never changes.
        """
        try:
            if Registration.find(self._directory) != registration:
                return None
            digests = read_digests(Reader.open(self._directory / MANIFEST))
            if any(sha256(self._directory / name) != digest for name, digest in digests.items()):
                return None
            return sha256(self._directory / MANIFEST)
        except (BundleError, OSError):
            return None

    def open(self) -> None:
        """Make it, and remove what a run that was killed left. Raises `DiskError`."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._incoming, ignore_errors=True)
            self._incoming.mkdir(exist_ok=True)
        except OSError as error:
            raise self._failure(error) from None

    def receive(self, name: str, chunks: Iterator[bytes]) -> str:
        """Write a file; its sha256. Raises `DiskError`, or `ContentError` where all files together grow above the limit."""
        self._sizes[name] = 0
        digest = hashlib.sha256()
        try:
            stream = (self._incoming / name).open("wb", buffering=0)
        except OSError as error:
            raise self._failure(error) from None
        with stream:
            for chunk in chunks:
                self._sizes[name] += len(chunk)
                if self.received_bytes > self._max_bytes:
                    message = f"{name}: expected at most {self._max_bytes} bytes in all files, got more: raise --max_bytes"
                    raise ContentError(message)
                digest.update(chunk)
                self._write(stream, chunk)
        return digest.hexdigest()

    def _write(self, stream: FileIO, chunk: bytes) -> None:
        # An error of the network comes out of the iterator as an OSError too: this one is told from it here.
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[stream.write(rest) :]
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> DiskError:
        """What to raise for ``error``."""
        try:
            free = f", {shutil.disk_usage(self._directory).free} bytes are free"
        except OSError:
            free = ""
        return DiskError(f"{self._directory}: cannot be written: {error.strerror}{free}")

    def install(self, registration: Registration | None) -> None:
        """Move what was received to its place. Raises `DiskError`."""
        try:
            if registration:
                registration.save(self._incoming)
            # From here until its own manifest is there, the directory holds no bundle.
            for name in (MANIFEST, REGISTRATION):
                (self._directory / name).unlink(missing_ok=True)
            for name in (CHECKPOINT, ONNX, *([REGISTRATION] if registration else []), MANIFEST):
                (self._incoming / name).replace(self._directory / name)
            self._incoming.rmdir()
        except OSError as error:
            raise self._failure(error) from None

    def discard(self) -> None:
        """Remove what was received, since it will not be used."""
        shutil.rmtree(self._incoming, ignore_errors=True)
