"""One file from the hub to the disk, through the hub's client, going on where it was interrupted.

Version 2 of the client keeps nothing of an interrupted file, by plain HTTP or by Xet, so this gives
its `http_get` a file that was kept, and the number of bytes in it; it asks the hub for the rest.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from bh_studio import __version__
from bh_studio.engine.hub_files import HubFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# WORKAROUND: the client writes 10 MiB at a time, a minute's worth on a slow line, of which a kill
# would lose all and progress would show nothing. It reads this variable for every file.
constants.DOWNLOAD_CHUNK_SIZE = 2**16


def fetch_file(
    repo: str, commit: str, file: HubFile, path: Path, came: Callable[[int], None]
) -> None:
    """Fetch `file` into `path`, from the bytes on that are in it already.

    came: told how many bytes were written; a negative number takes bytes back that a server sends
    anew. Raises what the client raises, and OSError of the disk.
    """
    present = path.stat().st_size if path.exists() else 0
    if present > file.size:
        path.unlink()
        present = 0
    headers = build_hf_headers(library_name="bh-studio", library_version=__version__)
    # Compressed, a file could not be continued in the middle.
    headers["Accept-Encoding"] = "identity"
    url = hf_hub_url(repo, file.name, revision=commit)
    with _CountedFile(path, came) as target:
        http_get(url, target, resume_size=present, headers=headers, expected_size=file.size)


class _CountedFile(io.FileIO):
    """A file that is continued at its end and tells how many bytes it took."""

    def __init__(self, path: Path, came: Callable[[int], None]) -> None:
        super().__init__(path, "ab")
        self._came = came

    def write(self, data: ReadableBuffer) -> int:
        rest = memoryview(data)
        while rest:
            written = super().write(rest)
            self._came(written)
            rest = rest[written:]
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        kept = self.tell() if size is None else size
        before = self.seek(0, io.SEEK_END)
        super().truncate(kept)
        self.seek(kept)
        self._came(kept - before)
        return kept
