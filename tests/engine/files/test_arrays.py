"""Arrays from archives that anyone may have written: what is read, and what is not unpacked."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bh_studio.engine.files import arrays
from bh_studio.engine.files.arrays import (
    Archive,
    ArchiveError,
    MissingMemberError,
    NotAnArchiveError,
    WrongTypeError,
)
from tests.damaged_arrays import WAYS, bomb, little_memory, member_of, unpacks_to_more_than_it_says

VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def npz(**arrays: Any) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    path.write_bytes(npz(values=VALUES, words=np.array("ä\x00😀"), empty=np.zeros((0, 3))))
    return path


def test_what_numpy_wrote_is_read(archive: Path) -> None:
    for file in (archive, archive.read_bytes()):
        with Archive(file) as opened:
            assert opened.sizes.keys() == {"values.npy", "words.npy", "empty.npy"}
            found = opened.array("values", (np.float32,), (2, 3, 4))
            assert found.dtype == np.float32
            assert found.tolist() == VALUES.tolist()
            found[0, 0, 0] = 7  # its own memory
            assert opened.text("words") == "ä\x00😀"
            assert opened.array("empty", (np.float64,)).shape == (0, 3)
            assert opened.member("empty.npy", 1000).startswith(b"\x93NUMPY")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_what_never_ends_is_no_archive_and_not_waited_for(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if not path.exists():
        os.mkfifo(path)
    with pytest.raises(NotAnArchiveError, match="a pipe or a device"):
        Archive(path)


def test_a_folder_is_refused_as_open_would(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        Archive(tmp_path)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_order_in_memory_and_in_a_number_is_read(dtype: str, order: Any) -> None:
    written = np.asarray(VALUES, dtype, order=order)
    for shape in ((2, 3, 4), (1, 1, 1), (0, 3, 4)):
        part = written[tuple(slice(length) for length in shape)]
        with Archive(npz(a=part)) as opened:
            found = opened.array("a", (np.float32, np.float64))
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, part)


def test_large_arrays_come_in_pieces() -> None:
    large = np.random.default_rng(0).integers(0, 2**16, 3_000_000, dtype=np.uint16)
    for packed in (npz(a=large), npz(a=np.zeros(6 * 10**6, np.uint16))):
        with Archive(packed) as opened:
            found = opened.array("a", (np.uint16,))
            assert opened.member("a.npy", 2**24) == member_of(packed, "a.npy")
        assert found.shape in ((3_000_000,), (6 * 10**6,))
        assert found.sum() in (large.sum(), 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("as_bytes", [True, False])
def test_what_is_damaged_is_refused_and_not_unpacked(
    way: str, as_bytes: bool, archive: Path
) -> None:
    damaged = WAYS[way](archive.read_bytes(), "values.npy")
    archive.write_bytes(damaged)
    file = damaged if as_bytes else archive
    with (
        little_memory(),
        pytest.raises(ArchiveError, match=r"\.$"),
        Archive(file) as opened,
    ):
        opened.array("values", (np.float32,))
    if way not in ("a huge shape", "a shape that is huge and empty"):
        return
    with Archive(damaged) as opened, pytest.raises(ArchiveError, match=r"values is \(.*, not \(2"):
        opened.array("values", (np.float32,), (2, 3, 4))


def test_a_member_is_unpacked_no_further_than_it_says(archive: Path) -> None:
    longer = unpacks_to_more_than_it_says(archive.read_bytes(), "values.npy")
    with little_memory(), Archive(longer) as opened:
        assert opened.array("values", (np.float32,)).tolist() == VALUES.tolist()
        assert len(opened.member("values.npy", 10**4)) == opened.sizes["values.npy"]


def test_what_would_fill_the_memory_from_next_to_nothing_stays_packed(archive: Path) -> None:
    packed = bomb(archive.read_bytes(), "values.npy")
    with little_memory(), Archive(packed) as opened:
        for read in (
            lambda: opened.array("values", (np.float32,)),
            lambda: opened.member("values.npy", 2**30),
        ):
            with pytest.raises(
                ArchiveError, match=r"^values\.npy takes \d+ bytes and would unpack"
            ):
                read()


def test_other_types_and_shapes_are_named(archive: Path) -> None:
    with Archive(archive) as opened:
        with pytest.raises(
            WrongTypeError, match=r"^values is float32, not uint8 or float64\.$"
        ) as refused:
            opened.array("values", (np.uint8, np.float64))
        assert refused.value.dtype == "float32"
        with pytest.raises(ArchiveError, match=r"^values is \(2, 3, 4\), not \(3, 4\)\.$"):
            opened.array("values", (np.float32,), (3, 4))
        with pytest.raises(WrongTypeError, match=r"^values is float32, not a text\.$"):
            opened.text("values")
        with pytest.raises(MissingMemberError, match=r"^it holds no others\.npy\.$"):
            opened.array("others", (np.float32,))
        with pytest.raises(ArchiveError, match=r"values\.npy would unpack to 224 bytes, more than"):
            opened.member("values.npy", 223)


def test_a_text_keeps_the_blanks_at_its_ends_and_no_filling() -> None:
    with Archive(
        npz(filled=np.array(" ab \n", dtype="<U9"), swapped=np.array("é ", ">U2"))
    ) as opened:
        assert opened.text("filled") == " ab \n"
        assert opened.text("swapped") == "é "


def test_a_text_that_is_none_is_refused() -> None:
    beyond = np.array(["xy"]).view(np.uint32)
    beyond[1] = 0x110000
    texts = npz(
        beyond=beyond.view("<U2").reshape(()), long=np.array("x" * 2**19), two=np.array(["a", "b"])
    )
    with Archive(texts) as opened:
        with pytest.raises(ArchiveError, match=r"^two is \(2,\), not \(\)\.$"):
            opened.text("two")
        with pytest.raises(ArchiveError, match="characters that do not exist"):
            opened.text("beyond")
        with little_memory(), pytest.raises(ArchiveError, match="more than is allowed"):
            opened.text("long")


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for data in (b"", b"PK", b"hello", npz(a=VALUES)[:200]):
        path.write_bytes(data)
        for file in (path, data):
            with pytest.raises(NotAnArchiveError):
                Archive(file)
    with pytest.raises(FileNotFoundError):
        Archive(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        Archive(tmp_path)


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("comment", [b"", b"by hand", b"zeros at its end\0\0", b"x" * 65_535])
def test_a_directory_of_very_many_members_is_not_read(
    comment: bytes, as_bytes: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    for members, is_read in ((2, True), (20, False)):
        with zipfile.ZipFile(path, "w") as bundle:
            for number in range(members):
                # With the mark in it by which the end of a directory is found.
                bundle.writestr(f"{number} PK\x05\x06" + "x" * 60_000, b"")
            bundle.comment = comment
        file = path.read_bytes() if as_bytes else path
        if is_read:
            with Archive(file) as opened:
                assert len(opened.sizes) == members
        else:
            with pytest.raises(ArchiveError, match=r"^it holds far more members than"):
                Archive(file)


def test_an_array_of_any_size_is_read_if_it_is_packed_as_numbers_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrays, "_LITTLE", 1000)
    drawn = np.random.default_rng(0).random(1000)
    with Archive(npz(a=drawn)) as opened:
        assert opened.array("a", (np.float64,)).tolist() == drawn.tolist()


def test_a_shape_can_be_judged_by_whoever_asks(archive: Path) -> None:
    def judged(shape: tuple[int, ...]) -> None:
        raise ArchiveError(f"{shape} will not do.")

    with Archive(archive) as opened, pytest.raises(ArchiveError, match=r"^\(2, 3, 4\) will not"):
        opened.array("values", (np.float32,), judged)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_any_byte_may_be_wrong(packing: int, archive: Path) -> None:
    """Nothing but ArchiveError comes out, whatever is changed."""
    whole = io.BytesIO()
    with Archive(archive) as old, zipfile.ZipFile(whole, "w", packing) as new:
        for name, size in old.sizes.items():
            new.writestr(name, old.member(name, size))
    drawn = random.Random(0)
    for position in range(len(whole.getvalue())):
        changed = bytearray(whole.getvalue())
        changed[position] ^= drawn.randrange(1, 256)
        try:
            with Archive(bytes(changed)) as opened:
                opened.array("values", (np.float32,), (2, 3, 4))
                opened.text("words")
        except ArchiveError:
            pass
