"""JSON into frozen dataclasses and back; what does not fit is said in a sentence.

msgspec reads the characters and says what the values are. What it does not read Python's own json
does, which also writes them, for it takes what is on people's disks: names of files that are not
Unicode, numbers as they were always written. Knows no document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bh_studio.engine.files.text import is_text

if TYPE_CHECKING:
    import msgspec

_T = TypeVar("_T")
_WORDS = {
    "int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false",
    "object": "an object", "array": "a list", "null": "null",
}  # fmt: skip
_MISMATCH = re.compile(r"Expected `(.+)`, got `(.+)`")
_MISSING = re.compile(r"Object missing required field `(.+)`")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_LONGEST_VALUE = 60
# About what an object, a list and one more value take in memory.
_WEIGHTS = {b"{": 240, b"[": 72, b",": 24}
# Numbers and texts take up to three times their length. Lists of nothing take thirty times.
_LITTLE, _MOST_GROWTH = 40_000_000, 3
# Far deeper than any document of ours, far less than Python can write.
_DEEPEST = 100


class JsonError(ValueError):
    """JSON is not what it should be; the message is a sentence that names the place."""


def parsed(data: bytes | str, name: str = "it") -> Any:
    """Plain values, for documents that are looked at before `convert` makes something of them.

    name: what `data` is, for the sentence. Raises JsonError for what is not JSON, is nested too
    deep, or would take far more memory than it is long.
    """
    import msgspec

    given = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    weight = sum(given.count(sign) * each for sign, each in _WEIGHTS.items())
    if weight > _LITTLE + _MOST_GROWTH * len(given):
        raise JsonError(
            f"{name} would take {weight >> 20} MiB of memory, more than a file of its length may."
        )
    try:
        return msgspec.json.decode(given)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        pass
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise JsonError(f"{name} is not valid JSON.") from None


def check_encodable(values: Any, name: str = "it") -> None:
    """Raise JsonError for plain values that could be read and are no JSON all the same, such as
    1e999, half a surrogate pair or lists too deep: what repeats them could not be written."""
    inside: list[Iterator[Any]] = [iter((values,))]
    while inside:
        for value in inside[-1]:
            if isinstance(value, dict):
                inside.append(chain(value, value.values()))
                break
            if isinstance(value, list):
                inside.append(iter(value))
                break
            is_number = isinstance(value, float)
            if (is_number and not isfinite(value)) or (
                isinstance(value, str) and not is_text(value)
            ):
                raise JsonError(f"{name} has a number or a character that is no JSON.")
        else:
            inside.pop()
        if len(inside) > _DEEPEST:
            raise JsonError(f"{name} is nested too deep.")


def decode(kind: type[_T], data: bytes | str) -> _T:
    """`data` as a `kind`. Raises JsonError, as `convert` does."""
    return convert(kind, parsed(data))


def convert(kind: type[_T], values: Any, name: str = "") -> _T:
    """Plain `values` as a `kind`: a dataclass, a list of them, a number or whatever types say.

    Strict: no text is taken for a number, no field is left out that has no default, and none is
    there that is not known. Lists become tuples and texts paths where that is the type. name: what
    the values are, for the sentence. Raises JsonError, also for what the dataclass itself refuses.
    """
    # Not at the top: it takes longer to import than the rest of the room together.
    import msgspec

    try:
        made = msgspec.convert(values, kind, dec_hook=_from_plain)
        unknown = _unknown(values, msgspec.to_builtins(made, enc_hook=_to_plain), name)
    except msgspec.ValidationError as error:
        raise JsonError(_sentence(error, values, name)) from error
    except RecursionError:
        raise JsonError(f"{name or 'it'} is nested too deep.") from None
    except UnicodeError:
        raise JsonError(f"{name or 'it'} has a character that does not exist.") from None
    if unknown is not None:
        raise JsonError(f"{unknown or 'A field without a name'} is not known.")
    return made


def encode(value: object, indent: int | None = None) -> bytes:
    """A dataclass, or what holds some, as JSON in ASCII: one line unless there is `indent`.

    Raises ValueError for a number that is not finite.
    """
    import msgspec

    plain = msgspec.to_builtins(value, enc_hook=_to_plain)
    return json.dumps(plain, indent=indent, allow_nan=False).encode()


def _from_plain(kind: type, value: object) -> object:
    if kind is not Path:
        raise NotImplementedError(kind)
    if not isinstance(value, str):
        raise ValueError(f"a path is {_shown(value)}.")
    return Path(value)


def _to_plain(value: object) -> object:
    if not isinstance(value, Path):
        raise NotImplementedError(type(value))
    return str(value)


def _unknown(given: Any, made: Any, place: str) -> str | None:
    """The first name in `given` that nothing was made of; None if there is none."""
    inside: list[tuple[str, Any, Any]] = []
    if isinstance(given, dict) and isinstance(made, dict):
        for key, value in given.items():
            where = f"{place}.{key}".removeprefix(".")
            if key not in made:
                return where
            inside.append((where, value, made[key]))
    elif isinstance(given, list) and isinstance(made, list | tuple):
        pairs = zip(given, made, strict=False)
        inside = [
            (f"{place}[{n}]", one, other)
            for n, (one, other) in enumerate(pairs)
            # Most lists are of numbers, which hold no names.
            if isinstance(one, dict | list)
        ]
    found = (_unknown(value, counterpart, where) for where, value, counterpart in inside)
    return next((name for name in found if name is not None), None)


def _sentence(error: msgspec.ValidationError, values: Any, name: str) -> str:
    """What msgspec says, such as "Expected `int`, got `str` - at `$.layers`", in our words."""
    if error.__cause__ is not None:  # raised by the dataclass, which speaks for itself
        return str(error.__cause__)
    message, _, path = str(error).rpartition(" - at `")
    if not message:
        message, path = path, ""
    path = path.rstrip("`").removeprefix("key` in `").removeprefix("$")
    place = f"{name}{path}".removeprefix(".") or "it"
    if missing := _MISSING.fullmatch(message):
        return f"{missing[1]!r} is missing" + (f" in {place}." if place != "it" else ".")
    try:
        value = _shown(_value_at(values, path))
    except LookupError:  # below a name of anyone's choice, which msgspec does not tell
        value = "another value"
    if mismatch := _MISMATCH.fullmatch(message):
        expected, got = mismatch.groups()
        if expected == "str":
            return f"{place} is wrong: a text is {value}."
        value = {"array": "a list", "object": "an object", "str": f"the string {value}"}.get(
            got, value
        )
        wanted = " or ".join(_WORDS.get(kind, kind) for kind in expected.split(" | "))
        return f"{place} is {value}, not {wanted}."
    if message == "Number out of range":
        return f"{place} is too large."
    return f"{place} is {value}, which cannot be."


def _value_at(values: Any, path: str) -> Any:
    steps = list(_STEP.finditer(path))
    if "".join(step[0] for step in steps) != path:
        raise LookupError(path)
    for step in steps:
        values = values[step[1] if step[1] is not None else int(step[2])]
    return values


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
