"""Arrays in zip archives from anyone (.npz): sizes are checked before anything is unpacked.

Nothing pickled is ever read. Knows no session and no recording: what the file is called and what
it was to be is the caller's to say.
"""

from __future__ import annotations

import io
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import numpy as np

# What zipfile raises for archives that are cut, altered, encrypted or packed in unknown ways.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError, OverflowError,
)  # fmt: skip
# The most bytes that one byte can stand for: what numpy writes is stored or deflated.
_MOST_PACKED = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
# Numbers of a model and texts take a tenth at the least. Counts that are all alike take next to
# nothing, so that only what fills the memory is judged by that.
_USUALLY_PACKED, _LITTLE = 100, 2**24
# Asked for more at once, zipfile may unpack more than the member claims to hold.
_PIECE = 2**20
# Each entry of a directory becomes an object; ours have a dozen.
_DIRECTORY_BYTES = 2**20
_END = struct.Struct("<4s4H2LH")
# The header before the data of a member.
_LOCAL = struct.Struct("<4s5H3L2H")
# numpy itself reads no longer headers than 10,000 characters.
_HEADER_BYTES = 2**14
_TEXT_BYTES = 2**20
_NO_HEADER = "its array has no header that is known."

_HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, Any]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


CheckShape = Callable[[tuple[int, ...]], None]


class ArchiveError(ValueError):
    """An archive cannot be read; the message ends the sentence "FILE is damaged: ..."."""


class NotAnArchiveError(ArchiveError):
    """It is no zip file at all."""


class MissingMemberError(ArchiveError):
    """It does not hold what was asked for."""


class WrongTypeError(ArchiveError):
    """An array is of another type than was asked for. dtype: its own, in words."""

    def __init__(self, name: str, dtype: str, wanted: str) -> None:
        super().__init__(f"{name} is {dtype}, not {wanted}.")
        self.dtype = dtype


class Archive:
    """A zip file that is open for reading, in a `with` block.

    file: its path, or its bytes. Raises NotAnArchiveError, ArchiveError for one whose directory is
    damaged, and OSError if it cannot be opened.
    """

    def __init__(self, file: Path | bytes) -> None:
        if isinstance(file, Path) and _never_ends(file):
            raise NotAnArchiveError("it is no file but a pipe or a device.")
        source = io.BytesIO(file) if isinstance(file, bytes) else file
        self._path = Path() if isinstance(file, bytes) else file
        if _directory_bytes(file) > _DIRECTORY_BYTES:
            raise ArchiveError("it holds far more members than an archive of arrays.")
        try:
            self._bundle = zipfile.ZipFile(source)
        except _UNREADABLE as error:
            if not zipfile.is_zipfile(source):
                raise NotAnArchiveError("it is not a zip file.") from None
            raise ArchiveError(_sentence(error)) from error
        self._bytes = len(file) if isinstance(file, bytes) else os.stat(file).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bundle.close()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes that each member claims to hold unpacked, by its name; nothing is unpacked."""
        return {info.filename: info.file_size for info in self._bundle.infolist()}

    def member(self, name: str, most_bytes: int) -> bytes:
        """All of a member, of at most `most_bytes`. Raises ArchiveError."""
        info = self._info(name)
        if info.file_size > most_bytes:
            raise ArchiveError(
                f"{name} would unpack to {info.file_size} bytes, more than is allowed."
            )
        with self._opened(info) as stream:
            return b"".join(_pieces(stream, info.file_size))

    def array(
        self,
        name: str,
        dtypes: Collection[type[np.generic]],
        shape: tuple[int, ...] | CheckShape | None = None,
    ) -> np.ndarray:
        """The array NAME.npy, of one of `dtypes` in any byte order; comes in the machine's own.

        shape: what it must have, or what raises ArchiveError for one that it may not have, before
        more than the header is unpacked; None for any. The result may be written to. Raises
        ArchiveError, WrongTypeError for another type.
        """
        wanted = [np.dtype(dtype) for dtype in dtypes]
        return self._array(
            name, lambda dtype: dtype in wanted, " or ".join(map(str, wanted)), shape
        )

    def place(self, name: str, size: int) -> int:
        """Where a member of exactly `size` bytes begins in the file, which holds it unpacked.

        Raises ArchiveError for another, OSError if the file cannot be read.
        """
        info = self._info(name)
        if (info.compress_type, info.file_size) != (zipfile.ZIP_STORED, size):
            raise ArchiveError(f"{name} is not {size} bytes that can be read where they lie.")
        # That looks whether the header there is that of this member.
        with self._opened(info), self._path.open("rb") as file:
            file.seek(info.header_offset)
            *_, name_length, extra_length = _LOCAL.unpack(file.read(_LOCAL.size))
        start: int = info.header_offset + _LOCAL.size + name_length + extra_length
        if start + size > self._bytes:
            raise ArchiveError("it ends before it should.")
        return start

    def text(self, name: str) -> str:
        """The text in NAME.npy, an array without axes. Raises ArchiveError."""
        size = self._info(f"{name}.npy").file_size
        if size > _TEXT_BYTES:
            raise ArchiveError(f"{name} would unpack to {size} bytes, more than is allowed.")
        array = self._array(name, lambda dtype: dtype.kind == "U", "a text", ())
        characters = array.astype(array.dtype.newbyteorder("<")).tobytes()
        try:
            # numpy's own way lets numbers pass that stand for no character.
            return characters.decode("utf-32-le").rstrip("\0")
        except UnicodeDecodeError:
            raise ArchiveError(f"{name} holds characters that do not exist.") from None

    def _array(
        self,
        name: str,
        is_wanted: Callable[[np.dtype[Any]], bool],
        wanted: str,
        shape: tuple[int, ...] | CheckShape | None,
    ) -> np.ndarray:
        info = self._info(f"{name}.npy")
        with self._opened(info) as stream:
            head = stream.read(min(info.file_size, _HEADER_BYTES))
            header = _header(head)
            native = header.dtype.newbyteorder("=")
            if not is_wanted(native):
                raise WrongTypeError(name, str(header.dtype), wanted)
            if isinstance(shape, tuple) and header.shape != shape:
                raise ArchiveError(f"{name} is {header.shape}, not {shape}.")
            size = info.file_size - header.length
            if math.prod(header.shape) * native.itemsize != size:
                raise ArchiveError(f"its size does not fit the shape {header.shape}.")
            if callable(shape):
                shape(header.shape)
            buffer = np.empty(size, np.uint8)
            place = len(head) - header.length
            buffer[:place] = np.frombuffer(head, np.uint8, offset=header.length)
            for piece in _pieces(stream, size - place):
                buffer[place : place + len(piece)] = np.frombuffer(piece, np.uint8)
                place += len(piece)
            flat = buffer.view(header.dtype).astype(native, copy=False)
            return flat.reshape(header.shape, order="F" if header.is_fortran else "C")

    def _info(self, name: str) -> zipfile.ZipInfo:
        """What the directory says of a member, as far as that can be true."""
        try:
            info = self._bundle.getinfo(name)
        except KeyError:
            raise MissingMemberError(f"it holds no {name}.") from None
        if info.compress_type not in _MOST_PACKED:
            raise ArchiveError(f"{name} is packed in a way that is not known.")
        possible = _MOST_PACKED[info.compress_type] * info.compress_size
        if info.header_offset < 0 or info.compress_size > self._bytes or info.file_size > possible:
            raise ArchiveError(f"{name} cannot hold the {info.file_size} bytes that it claims.")
        if info.file_size > max(_LITTLE, _USUALLY_PACKED * info.compress_size):
            raise ArchiveError(
                f"{name} takes {info.compress_size} bytes and would unpack to {info.file_size}, "
                "more than numbers or a text can."
            )
        return info

    @contextmanager
    def _opened(self, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        try:
            with self._bundle.open(info) as stream:
                yield stream
        except ArchiveError:
            raise
        except _UNREADABLE as error:
            raise ArchiveError(_sentence(error)) from error


def _never_ends(path: Path) -> bool:
    """Whether to open or read what is at `path` may be to wait. Raises OSError if nothing is."""
    mode = path.stat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _directory_bytes(file: Path | bytes) -> int:
    """How long the directory says it is; 0 where none is found. Raises OSError."""
    most = _END.size + 2**16  # with the longest comment
    if isinstance(file, bytes):
        tail = file[-most:]
    else:
        with file.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - most))
            tail = stream.read(most)
    # Where zipfile looks: at the very end if there is no comment, else at the last such mark.
    place = len(tail) - _END.size
    if place < 0 or tail[place : place + 4] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        place = tail.rfind(b"PK\x05\x06")
    if place < 0 or place + _END.size > len(tail):
        return 0
    size: int = _END.unpack_from(tail, place)[5]
    return size


class _Header(NamedTuple):
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    length: int


def _header(head: bytes) -> _Header:
    """The header at the start of an .npy file."""
    stream = io.BytesIO(head)
    try:
        shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    # Whatever numpy's parser stumbles over: a bracket that is never closed ends in tokenize.
    except Exception as error:
        raise ArchiveError(_NO_HEADER) from error
    if any(length < 0 for length in shape):
        raise ArchiveError(_NO_HEADER)
    return _Header(shape, is_fortran, dtype, stream.tell())


def _pieces(stream: IO[bytes], size: int) -> Iterator[bytes]:
    """The next `size` bytes, in pieces. Raises ArchiveError if there are fewer."""
    while size:
        piece = stream.read(min(size, _PIECE))
        if not piece:
            raise ArchiveError("it ends before it should.")
        size -= len(piece)
        yield piece


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.') or type(error).__name__}."
