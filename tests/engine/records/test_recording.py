"""Reading recorded router logits: both kinds of file, and files that are not to be trusted."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bh_studio.engine.records import recording as recorded
from bh_studio.engine.records.recording import (
    RecordedLogits,
    RecordingOrigin,
    checked_logits,
    read_router_logits,
)
from bh_studio.engine.rules.parameters import ScoreName
from tests.damaged_arrays import WAYS, bomb, little_memory, unpacks_to_more_than_it_says

LOGITS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
RECORDED = RecordedLogits(
    LOGITS,
    RecordingOrigin("model", "text", 3, 0, 16, 2),
    {ScoreName.OUTPUT: np.ones((2, 4), np.float32)},
)


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_router_logits(path)


def npy(array: np.ndarray, **header: Any) -> bytes:
    """The bytes of an .npy file with `header` in place of its own."""
    stream = io.BytesIO()
    described = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **header}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue() + array.tobytes()


def write_member(path: Path, data: bytes, name: str = "logits.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr(name, data)
    return path


def test_a_recording_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "null.npz"
    path.write_bytes(RECORDED.packed())
    found = read_router_logits(path)
    assert found.logits.tolist() == LOGITS.tolist()
    assert found.origin == RECORDED.origin
    assert found.factors[ScoreName.OUTPUT].tolist() == [[1.0] * 4] * 2
    assert found.sha256 == RECORDED.sha256
    # Sessions name it, so it may never change.
    assert found.sha256 == "6f7a389736acf1ae82eb4b98b1a0914f682bd1762c2602ffee634d71217c2040"


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_bare_array_stays_what_it_is(dtype: str, order: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "bare.npz", logits=np.asarray(LOGITS, dtype, order=order), note="a")
    found = read_router_logits(path)
    assert found.origin is None
    assert not found.factors
    assert found.logits.dtype == np.dtype(dtype).newbyteorder("=")
    assert found.logits.tolist() == LOGITS.tolist()


def test_what_is_not_such_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    path.write_bytes(b"hello")
    refused(path, "other.npz is not an .npz file of router logits.")
    path.write_bytes(b"")
    refused(path, "other.npz is not an .npz file of router logits.")
    np.save(tmp_path / "array.npy", LOGITS)
    refused(tmp_path / "array.npy", "array.npy is not an .npz file of router logits.")
    refused(write(path, a=LOGITS, b=LOGITS), 'other.npz holds no array "logits"; it holds a, b.')
    refused(write(path, logits=LOGITS.astype(int)), "it holds int64.")
    refused(write(path, logits=LOGITS.astype(np.float16)), "it holds float16.")
    refused(write(path, logits=LOGITS[0]), "the axes (layer, token, expert); got float32 (3, 4).")
    refused(write(path, logits=LOGITS[:, :0]), "at least one token, and 2 to 255 experts; got 2, 0")
    refused(write(path, logits=LOGITS, header="{}"), "other.npz is not a recording of BH Studio")
    with pytest.raises(FileNotFoundError):
        read_router_logits(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        read_router_logits(tmp_path)


def test_nothing_pickled_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "objects.npz", logits=np.array([{}], dtype=object))
    refused(path, "it holds object.")
    # The first bytes of a pickle.
    refused(write_member(path, b"\x80\x04\x95"), "its array has no header that is known.")


def test_an_array_that_claims_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    refused(write_member(path, npy(LOGITS, shape=(2**20, 2**20, 64))), "does not fit the shape")
    refused(write_member(path, npy(LOGITS, shape=(2, 3, 3))), "does not fit the shape (2, 3, 3).")
    refused(write_member(path, npy(LOGITS, descr="<f8")), "does not fit the shape (2, 3, 4).")
    refused(write_member(path, npy(LOGITS)[:40]), "its array has no header that is known.")


def test_a_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "_MAX_BYTES", 2**30)
    path = write_member(tmp_path / "bomb.npz", npy(LOGITS))
    data = path.read_bytes()
    # The size that the directory of the archive states for its only member.
    place = data.index(b"PK\x01\x02") + 24
    path.write_bytes(data[:place] + (2**31).to_bytes(4, "little") + data[place + 4 :])
    refused(path, "bomb.npz would unpack to more than 1 GiB.")


def test_a_cut_or_altered_file_is_refused(tmp_path: Path) -> None:
    whole = write_member(tmp_path / "whole.npz", npy(LOGITS)).read_bytes()
    path = tmp_path / "cut.npz"
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "cut.npz is not an .npz file of router logits.")
    place = len(whole) // 3
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    refused(path, "cut.npz is damaged: ")


@pytest.mark.parametrize("way", WAYS)
def test_damaged_arrays_are_named_and_not_unpacked(way: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bare.npz", logits=LOGITS)
    path.write_bytes(WAYS[way](path.read_bytes(), "logits.npy"))
    other_type = way in ("objects", "numbers without bytes")
    said = "must hold float32 or float64 router logits; it holds " if other_type else "is damaged: "
    with little_memory():
        refused(path, f"bare.npz {said}")


def test_logits_that_are_all_alike_are_not_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "bare.npz", logits=LOGITS)
    path.write_bytes(bomb(path.read_bytes(), "logits.npy"))
    with little_memory():
        refused(path, "bare.npz is damaged: logits.npy takes ")


def test_arrays_are_unpacked_no_further_than_they_say(tmp_path: Path) -> None:
    path = write(tmp_path / "bare.npz", logits=LOGITS)
    path.write_bytes(unpacks_to_more_than_it_says(path.read_bytes(), "logits.npy"))
    with little_memory():
        assert read_router_logits(path).logits.tolist() == LOGITS.tolist()


def test_a_null_with_a_header_of_other_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "null.npz"
    path.write_bytes(RECORDED.packed())
    with np.load(path) as file:
        header, logits = json.loads(str(file["header"])), file["logits"]
    write(path, header=np.array(json.dumps({**header, "top_k": "4"})), logits=logits)
    refused(path, "null.npz is ")
    write(path, header=np.array("[" * 100_000), logits=logits)
    refused(path, "null.npz is ")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    logits = LOGITS.astype(np.float64)
    logits[1, 2, 3] = logits[1, 2, 0] = value
    sentence = "2 router logits are not finite in float32, the first in layer 1, token 2, expert 0."
    with pytest.raises(ValueError, match=sentence):
        checked_logits(logits)
