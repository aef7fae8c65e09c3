"""Damage to files, drawn from a generator: what disks, other programs and ill will do to them.

Each mutation takes the bytes of a file and gives others, with a few words on what was done. Knows
the forms of files (bytes, JSON, lines of JSON, zip, .npy, safetensors) and none of their contents.
"""

from __future__ import annotations

import ast
import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Mutated(NamedTuple):
    """The bytes, and what was done to get them."""

    data: bytes
    what: str


class _Raw(str):
    """A text that goes into JSON as it stands."""


_DEEP = 100_000
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.5, 1e308, 10**20, 10**400, "", "x", "\ud800", "\x00", [], {},
    [[[]]], {"": None}, [1, "x"], "x" * 10**6, [0] * 10**5, {str(n): n for n in range(10**4)},
    _Raw("NaN"), _Raw("Infinity"), _Raw("-Infinity"), _Raw("1e999"), _Raw("1" * 5000),
    _Raw("[" * _DEEP + "]" * _DEEP), _Raw('{"a":' * _DEEP + "0" + "}" * _DEEP),
    _Raw("[" + "[]," * 10**6 + "0]"), _Raw("[" * 500 + "]" * 500), _Raw('"' + "é" * 10**6 + '😀"'),
)  # fmt: skip
_TYPES = (
    "<f4", ">f4", "<f8", ">f8", "<f2", "|u1", "|i1", "<i8", "|O", "<U7", "<U0", "|V4", "<c8",
    "|S3", "<M8[s]", "|b1", [("a", "<f4")], "<q9", "",
)  # fmt: skip
_LENGTHS = (0, 1, -1, 2, 255, 256, 1025, 10**9, 2**31, 2**63, 2**64, 10**30)


def mutated(data: bytes, form: str, drawn: random.Random) -> Mutated:
    """`data`, a file of the `form` that _FORMS has, with some damage. Never fails."""
    ways = _FORMS[form] + _FORMS["bytes"]
    while True:
        # One of its own form more often than one that any file can have.
        way = drawn.choice(_FORMS[form] if drawn.random() < 0.75 else ways)
        try:
            changed, what = way(data, drawn)
        except (LookupError, SyntaxError, ValueError, TypeError, zipfile.BadZipFile, struct.error):
            # Nothing of that kind is there to be damaged.
            form = form if drawn.random() < 0.9 else "bytes"
            continue
        if changed != data:
            return Mutated(changed, what)


# --- any file -------------------------------------------------------------------------------


def _flip(data: bytes, drawn: random.Random) -> Mutated:
    changed = bytearray(data)
    places = [drawn.randrange(len(data)) for _ in range(drawn.choice((1, 1, 2, 8)))]
    for place in places:
        changed[place] ^= 1 << drawn.randrange(8)
    return Mutated(bytes(changed), f"bits flipped at {places}")


def _truncate(data: bytes, drawn: random.Random) -> Mutated:
    length = drawn.randrange(len(data))
    return Mutated(data[:length], f"cut at {length}")


def _insert(data: bytes, drawn: random.Random) -> Mutated:
    place = drawn.randrange(len(data) + 1)
    piece = drawn.choice(
        (drawn.randbytes(drawn.randrange(1, 40)), b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\n", b'"')
    )
    return Mutated(data[:place] + piece + data[place:], f"{piece[:8]!r} inserted at {place}")


def _remove(data: bytes, drawn: random.Random) -> Mutated:
    place = drawn.randrange(len(data))
    length = drawn.choice((1, 4, 100))
    return Mutated(data[:place] + data[place + length :], f"{length} bytes removed at {place}")


def _repeat(data: bytes, drawn: random.Random) -> Mutated:
    place = drawn.randrange(len(data))
    end = place + drawn.choice((1, 50, 1000))
    return Mutated(data[:end] + data[place:end] + data[end:], f"bytes repeated from {place}")


def _overwrite(data: bytes, drawn: random.Random) -> Mutated:
    place = drawn.randrange(len(data))
    piece = drawn.choice((b"\xff" * 4, b"\0" * 4, b"9" * 9, b"\xff" * 8, b"\x7f"))
    changed = data[:place] + piece + data[place + len(piece) :]
    return Mutated(changed, f"{piece!r} over {place}")


def _replace_all(data: bytes, drawn: random.Random) -> Mutated:
    piece = drawn.choice((b"", b"{}", b"[]", b"null", b"PK\x03\x04", b"[" * _DEEP, b"\0" * 10**6))
    return Mutated(piece, f"all replaced by {piece[:8]!r}")


# --- JSON -----------------------------------------------------------------------------------


def _json(data: bytes, drawn: random.Random) -> Mutated:
    document = json.loads(data)
    owner, key = _place(document, drawn)
    what = f"at {key!r}"
    raws: dict[str, str] = {}
    match drawn.randrange(7):
        case 0:
            del owner[key]
            return Mutated(_dumped(document, raws), f"removed {what}")
        case 1 if isinstance(owner, dict):
            owner[f"{key}{drawn.choice(('', ' ', '_', chr(0xD800)))}x"] = owner.pop(key)
            return Mutated(_dumped(document, raws), f"renamed {what}")
        case 2 if isinstance(owner, dict):
            other = drawn.choice(_VALUES[:20])
            raws[_mark(len(raws))] = (
                f"{json.dumps(owner[key])}, {json.dumps(str(key))}: {json.dumps(other)}"
            )
            owner[key] = _mark(0)
            return Mutated(_dumped(document, raws), f"twice {what}")
        case 3 if isinstance(owner, list):
            owner.insert(int(key), owner[key])
            return Mutated(_dumped(document, raws), f"repeated {what}")
        case 4:
            owner[key] = drawn.choice(
                ([owner[key]], {"x": owner[key]}, str(owner[key]), [owner[key], owner[key]])
            )
            return Mutated(_dumped(document, raws), f"wrapped {what}")
        case _:
            value = drawn.choice(_VALUES)
            if isinstance(value, _Raw):
                raws[_mark(0)] = value
                owner[key] = _mark(0)
            else:
                owner[key] = value
            return Mutated(_dumped(document, raws), f"{repr(value)[:40]} {what}")


def _mark(number: int) -> str:
    return f"@@raw{number}@@"


def _dumped(document: Any, raws: dict[str, str]) -> bytes:
    text = json.dumps(document)
    for mark, raw in raws.items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode()


def _place(document: Any, drawn: random.Random) -> tuple[Any, Any]:
    """A random member of `document`: what holds it, and where. Shallow ones come as often."""
    owner, key = document, drawn.choice(_keys(document))
    while isinstance(owner[key], dict | list) and owner[key] and drawn.random() < 0.75:
        owner = owner[key]
        key = drawn.choice(_keys(owner))
    return owner, key


def _keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def _lines(data: bytes, drawn: random.Random) -> Mutated:
    lines = data.split(b"\n")
    number = drawn.randrange(len(lines))
    match drawn.randrange(6):
        case 0:
            del lines[number]
            what = "removed"
        case 1:
            lines.insert(drawn.randrange(len(lines)), lines[number])
            what = "repeated elsewhere"
        case _:
            lines[number], what = _json(lines[number], drawn)
    return Mutated(b"\n".join(lines), f"line {number + 1}: {what}")


# --- arrays ---------------------------------------------------------------------------------


def _npy_parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    stream = io.BytesIO(data)
    np.lib.format.read_magic(stream)
    (length,) = struct.unpack("<H", stream.read(2))
    return ast.literal_eval(stream.read(length).decode()), stream.read()


def _npy(data: bytes, drawn: random.Random) -> Mutated:
    header, body = _npy_parts(data)
    text, version = "", (1, 0)
    match drawn.randrange(9):
        case 0:
            header["descr"] = drawn.choice(_TYPES)
        case 1:
            shape = list(header["shape"])
            shape[drawn.randrange(len(shape))] = drawn.choice(_LENGTHS)
            header["shape"] = tuple(shape)
        case 2:
            shapes = ((), (1,), (len(body),), (1,) * 100, tuple(reversed(header["shape"])))
            header["shape"] = drawn.choice((*shapes, (10**12, 4), (0, 10**30), (-1,), "x", None))
        case 3:
            header["fortran_order"] = drawn.choice((not header["fortran_order"], None, 3, "x"))
        case 4:
            del header[drawn.choice(sorted(header))]
        case 5:
            whole = repr(header)
            cut = whole[: drawn.randrange(len(whole))]
            text = drawn.choice((cut, "(" * 9000, "[1, 2]", "", "{" * 300, "'" * 9, "1" * 5000))
        case 6:
            version = drawn.choice(((2, 0), (3, 0), (0, 0), (9, 9)))
        case 7:
            alike = struct.pack("<d", drawn.choice((float("nan"), float("inf"), 1e300, -1.0)))
            body = drawn.choice((body[:-3], body + b"\0" * 100, b"", alike * (len(body) // 8 + 1)))
        case _:
            header["shape"] = (len(body) * 20_000,)
            body = bytes(len(body) * 20_000)
    text = text or repr(header)
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    made = b"\x93NUMPY" + bytes(version) + size + text.encode() + body
    return Mutated(made, f"array: {text[:60]}, version {version}, {len(body)} bytes")


# --- archives -------------------------------------------------------------------------------


def _zip(data: bytes, drawn: random.Random) -> Mutated:
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        members = [(info.filename, bundle.read(info)) for info in bundle.infolist()]
    number = drawn.randrange(len(members))
    name, content = members[number]
    packing = drawn.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED))
    match drawn.randrange(12):
        case 0:
            other = drawn.choice((f"../{name}", f"{name}x", "x", name.upper(), f"/{name}", "ü"))
            members[number] = (other, content)
            what = f"renamed {other!r}"
        case 1:
            members.append((name, drawn.choice((content, b"", content[:10]))))
            what = "twice"
        case 2:
            del members[number]
            what = "removed"
        case 3:
            packing = drawn.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
            what = f"packed as {packing}"
        case 4:
            members[number] = (name, drawn.choice((b"", b"PK", drawn.randbytes(100), bytes(10**7))))
            what = "replaced"
        case 5:
            members.append((drawn.choice(("other.npy", "x" * 60_000, "a/")), bytes(5 * 10**7)))
            what = "another member of 50 MB"
        case 6:
            members += [(f"{n}.npy", b"") for n in range(2000)]
            what = "2000 more members"
        case _:
            form = {"json": "json", "npz": "zip", "npy": "npy"}.get(name.rpartition(".")[2])
            changed, what = mutated(content, form or "bytes", drawn)
            members[number] = (name, changed)
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", packing) as bundle:
        warnings.simplefilter("ignore")  # of names that are there twice
        for member in members:
            bundle.writestr(*member)
    return Mutated(made.getvalue(), f"{name}: {what}")


def _directory(data: bytes, drawn: random.Random) -> Mutated:
    """A field of a member's entry in the directory, or of the directory's end, overwritten."""
    places = [place for place in range(len(data)) if data[place : place + 4] == b"PK\x01\x02"]
    place = drawn.choice(places) + drawn.choice((6, 8, 10, 16, 20, 24, 28, 30, 34, 42))
    if drawn.random() < 0.2:
        place = data.rindex(b"PK\x05\x06") + drawn.choice((8, 10, 12, 16, 20))
    value = struct.pack("<I", drawn.choice((0, 1, 2**16 - 1, 2**26, 2**31, 2**32 - 1)))
    return Mutated(data[:place] + value + data[place + 4 :], f"directory at {place}: {value!r}")


# --- safetensors ----------------------------------------------------------------------------


def _safetensors(data: bytes, drawn: random.Random) -> Mutated:
    (length,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + length], data[8 + length :]
    if drawn.random() < 0.2:
        said = drawn.choice((0, 1, length - 1, length + 1, 10**8, 2**63, 2**64 - 1))
        return Mutated(struct.pack("<Q", said) + header + body, f"header of {said} bytes")
    changed, what = _json(header, drawn)
    return Mutated(struct.pack("<Q", len(changed)) + changed + body, f"header: {what}")


_Way = Callable[[bytes, random.Random], Mutated]
_FORMS: dict[str, tuple[_Way, ...]] = {
    "bytes": (_flip, _truncate, _insert, _remove, _repeat, _overwrite, _replace_all),
    "json": (_json,),
    "lines": (_lines,),
    "npy": (_npy,),
    "zip": (_zip, _zip, _zip, _directory),
    "safetensors": (_safetensors,),
}
