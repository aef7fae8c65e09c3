"""Archives of arrays (.npz) that are damaged, or lie about what they hold, in many ways."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

# Far more than any of the archives here holds, far less than they claim.
SMALL = 8 * 2**20
CLAIMED = 64 * 2**20


@contextmanager
def little_memory() -> Iterator[None]:
    """The test fails if more than SMALL bytes are allocated inside, if only for a while."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < SMALL
    finally:
        tracemalloc.stop()


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An .npy file with a header of anyone's choice."""
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(header)) + header.encode() + data


def with_member(
    archive: bytes, name: str, member: bytes, packing: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """`archive` with `member` in place of what it holds as `name`."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(changed, "w") as new:
        for info in old.infolist():
            if info.filename != name:
                new.writestr(info, old.read(info))
        new.writestr(name, member, packing)
    return changed.getvalue()


def bomb(archive: bytes, name: str) -> bytes:
    """`archive` with an array of 64 MiB in which every number is the same."""
    alike = io.BytesIO()
    np.save(alike, np.zeros((16, CLAIMED // 4096, 64), np.float32))
    return with_member(archive, name, alike.getvalue())


def member_of(archive: bytes, name: str) -> bytes:
    """What `archive` holds as `name`."""
    with zipfile.ZipFile(io.BytesIO(archive)) as bundle:
        return bundle.read(name)


def _header_of(archive: bytes, name: str) -> tuple[str, bytes]:
    stream = io.BytesIO(member_of(archive, name))
    np.lib.format.read_magic(stream)
    (length,) = struct.unpack("<H", stream.read(2))
    return stream.read(length).decode(), stream.read()


def _with_shape(shape: str) -> Callable[[bytes, str], bytes]:
    def damage(archive: bytes, name: str) -> bytes:
        header, data = _header_of(archive, name)
        before = header[: header.index("'shape': ")]
        return with_member(archive, name, npy(f"{before}'shape': {shape}, }}", data))

    return damage


def _with_header(header: str, version: tuple[int, int] = (1, 0)) -> Callable[[bytes, str], bytes]:
    def damage(archive: bytes, name: str) -> bytes:
        return with_member(archive, name, npy(header, _header_of(archive, name)[1], version))

    return damage


def _of_the_directory(place: int, value: bytes) -> Callable[[bytes, str], bytes]:
    """Damages `place` of the member's entry in the directory of the archive."""

    def damage(archive: bytes, name: str) -> bytes:
        archive = with_member(archive, name, member_of(archive, name))  # now the last
        entry = archive.rindex(b"PK\x01\x02") + place
        return archive[:entry] + value + archive[entry + len(value) :]

    return damage


def unpacks_to_more_than_it_says(archive: bytes, name: str) -> bytes:
    """A member of 64 MiB whose size and checksum are those of its first bytes."""
    header, data = _header_of(archive, name)
    said = npy(header, data)
    archive = with_member(archive, name, said + bytes(CLAIMED))
    entry = archive.rindex(b"PK\x01\x02")
    checksum = struct.pack("<I", zlib.crc32(said))
    size = struct.pack("<I", len(said))
    archive = archive[: entry + 16] + checksum + archive[entry + 20 :]
    return archive[: entry + 24] + size + archive[entry + 28 :]


def _has_a_header_of_4_gib(archive: bytes, name: str) -> bytes:
    long = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + bytes(CLAIMED)
    return with_member(archive, name, long)


WAYS: dict[str, Callable[[bytes, str], bytes]] = {
    "a bracket that is never closed": _with_header("{'descr': '<f4', 'shape': (2, 3,"),
    "brackets that are nested deep": _with_header("(" * 9000),
    "a header that is no dictionary": _with_header("[1, 2]"),
    "a header that is not ASCII": _with_header("\u00e9\u00e9"),
    "a type that does not exist": _with_header(
        "{'descr': '<q9', 'fortran_order': False, 'shape': (1,), }"
    ),
    "objects": _with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"),
    "numbers without bytes": _with_header(
        "{'descr': '<U0', 'fortran_order': False, 'shape': (9,), }"
    ),
    "an unknown version": _with_header("{}", (9, 9)),
    "a huge shape": _with_shape("(1099511627776, 1024, 64)"),
    "a shape that is huge and empty": _with_shape(f"(0, {10**30})"),
    "a shape below nothing": _with_shape("(-2, -3, 4)"),
    "a shape of 100 axes": _with_shape(str((1,) * 100)),
    "a header of 4 GiB": _has_a_header_of_4_gib,
    "a size that cannot be": _of_the_directory(24, struct.pack("<I", CLAIMED)),
    "more packed bytes than the file has": _of_the_directory(20, struct.pack("<I", CLAIMED)),
    "encryption": _of_the_directory(8, b"\x01\x00"),
    "another checksum": _of_the_directory(16, b"\x01\x02\x03\x04"),
    "another place": _of_the_directory(42, b"\x01\x00\x00\x00"),
    "a place behind the end": _of_the_directory(42, b"\xf0\xff\xff\xff"),
    "an unknown way of packing": lambda archive, name: with_member(
        archive, name, member_of(archive, name), zipfile.ZIP_LZMA
    ),
    "a way of packing that was not used": _of_the_directory(10, b"\x0c\x00"),
    "bytes that are cut off": lambda archive, name: with_member(
        archive, name, member_of(archive, name)[:-3]
    ),
    "nothing": lambda archive, name: with_member(archive, name, b""),
}
