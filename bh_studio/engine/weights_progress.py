"""Progress of reading a checkpoint, in place of transformers' progress bar on standard error."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.std import tqdm
from transformers.utils import logging as transformers_logging


@contextmanager
def reported_weights(report: Callable[[float], None]) -> Iterator[None]:
    """Call `report` with the share of the weights that was read, 0 to 1, inside the block."""

    class Bar(tqdm):
        def display(self, *_args: Any, **_kwargs: Any) -> bool:
            if self.total:
                report(self.n / self.total)
            return True

    def make_bar(_factory: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bar:
        return Bar(*args, **{**kwargs, "file": io.StringIO()})

    former = transformers_logging.set_tqdm_hook(make_bar)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(former)
