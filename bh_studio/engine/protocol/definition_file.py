"""Definitions of experiments as JSON files, to be run another time or on another machine.

Rules are written as commands take them. Texts and recordings stay where they are: a definition has
their paths, and the hashes by which it is known that they are still the same. Knows no command and
no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from bh_studio.engine.errors import InputError
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.files.plain_json import JsonError, check_encodable, convert, encode, parsed
from bh_studio.engine.files.text import read_text
from bh_studio.engine.protocol.experiments import (
    Batch,
    Budget,
    Calibration,
    Comparison,
    Evaluation,
    Experiment,
    Sweep,
    kind_of,
)
from bh_studio.engine.protocol.logits_files import LogitsFile, read_logits_file
from bh_studio.engine.protocol.texts import Text, read_named
from bh_studio.engine.rules import RuleParameters, format_rule, parse_rule

SCHEMA_VERSION = 1
# What results have, which bear the kind of their experiment too.
_OF_RESULTS = ("environment", "settings", "contenders")
F = TypeVar("F", Text, LogitsFile)
_KINDS: dict[str, type[Any]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(Experiment)
}


def save_definition(definition: Experiment, path: Path, sources: Mapping[str, Path]) -> None:
    """Write `definition` to `path` at once or not at all.

    sources: where its texts and recordings lie, by their hash. Paths below the folder of `path` are
    written relative to it, so that the folder can move as a whole. Raises OSError if the disk
    refuses.
    """
    fields = {
        name: _plain(getattr(definition, name), sources, path.parent)
        for name in definition.__struct_fields__
        if getattr(definition, name) is not msgspec.UNSET
    }
    document = {"schema_version": SCHEMA_VERSION, "kind": kind_of(definition), **fields}
    write_atomically(path, encode(document, indent=1) + b"\n")


def load_definition(path: Path) -> Experiment:
    """The definition in `path`, with the files that it names.

    Raises InputError for a file that is none, is damaged or of a later version, for values that no
    definition has, and for files that are not there or have changed.
    """
    document = _document(path)
    kind = _KINDS.get(str(document.get("kind"))) if isinstance(document, dict) else None
    if isinstance(document, dict) and not document.keys().isdisjoint(_OF_RESULTS):
        raise InputError(
            f"{path} is a result, not the definition of an experiment.",
            "A command writes that with --save-definition.",
        )
    if kind is None:
        raise InputError(
            f"{path} is no definition of an experiment.",
            f'Its "kind" has to be one of {", ".join(_KINDS)}.',
        )
    if "schema_version" not in document:
        raise InputError(f'{path} is no definition of an experiment: it has no "schema_version".')
    version = document.pop("schema_version")
    # True is 1 to Python.
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InputError(f"{path} was written by a later version of BH Studio.")
    hints = get_type_hints(kind)
    try:
        values = {
            name: _restored(value, hints.get(name), path.parent, name)
            for name, value in document.items()
        }
        definition: Experiment = convert(kind, values)
        _check_given(definition)
        return definition
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{path} cannot be run: it is nested too deep.") from None
    except ValueError as error:
        raise InputError(f"{path} cannot be run: {error}") from error


def _check_given(definition: Experiment) -> None:
    """Raise ValueError if there is nothing to read; a prompt among others may be blank."""
    match definition:
        case Comparison(prompt=prompt):
            prompts = [prompt]
        case Sweep(prompts=several):
            prompts = list(several)
        case Batch(prompts=rows):
            prompts = [asked.prompt for asked in rows]
        case Evaluation(texts=()) | Calibration(texts=()) | Budget(fit=()):
            raise ValueError("it names no text to read.")
        case _:
            return
    if not any(prompt.strip() for prompt in prompts):
        raise ValueError("the prompt is empty.")


def _document(path: Path) -> Any:
    """The JSON in `path`. Raises InputError also for values that no result could hold."""
    try:
        document = parsed(read_text(path), str(path))
    except JsonError as error:
        raise InputError(str(error)) from error
    try:
        # Rows repeat what is asked, so it must be possible to write it again.
        check_encodable(document)
    except JsonError as error:
        raise InputError(f"{path} cannot be run: {error}") from error
    return document


def _plain(value: Any, sources: Mapping[str, Path], folder: Path) -> Any:
    if isinstance(value, RuleParameters):
        return format_rule(value)
    if isinstance(value, Text | LogitsFile):
        return {"path": _written(sources[value.sha256], folder), "sha256": value.sha256}
    if isinstance(value, tuple):
        return [_plain(item, sources, folder) for item in value]
    return msgspec.to_builtins(value)


def _written(path: Path, folder: Path) -> str:
    path, folder = path.resolve(), folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _restored(value: Any, hint: Any, folder: Path, place: str) -> Any:
    """`value` as the types of a definition have it: rules by their fields, files with content."""
    if isinstance(value, list):
        return [
            _restored(item, hint, folder, f"{place}[{number}]") for number, item in enumerate(value)
        ]
    if isinstance(value, str) and _mentions(hint, RuleParameters):
        return msgspec.to_builtins(parse_rule(value))
    if _mentions(hint, Text):
        return asdict(_file(value, folder, place, read_named))
    # Where nulls come from is a file or a word.
    if _mentions(hint, LogitsFile) and not isinstance(value, str):
        return asdict(_file(value, folder, place, lambda path, _: read_logits_file(path)))
    return value


def _file(value: Any, folder: Path, place: str, read: Callable[[Path, str], F]) -> F:
    """What `read` makes of the file that `value` names, and its hash.

    Raises InputError if the file has changed.
    """
    if not isinstance(value, dict) or set(value) != {"path", "sha256"}:
        raise ValueError(f'{place} is no file, which has a "path" and its "sha256".')
    path = folder / str(value["path"])
    # What is no file, such as a pipe, may have no end; nor is there one with a zero in its name.
    try:
        is_other = path.exists() and not path.is_file()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if is_other:
        raise InputError(f"{path} is no file.")
    if "\0" in str(path):
        raise ValueError(f"{place} has a path that no file can have.")
    wanted = str(value["sha256"])
    found = read(path, wanted)
    if found.sha256 != wanted:
        raise InputError(
            f"{path} is not the file that was meant: its SHA-256 is {found.sha256}, not {wanted}."
        )
    return found


def _mentions(hint: Any, kind: type) -> bool:
    """Whether `kind` is in the type `hint`."""
    return hint is kind or any(_mentions(part, kind) for part in get_args(hint))
