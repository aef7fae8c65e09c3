"""A tiny model as the program loads it, where one bit of a float32 is not rounded away."""

from __future__ import annotations

import pytest

from bh_studio.engine.loading import LoadedModel, load_model
from tests.tiny_olmoe import save_tiny_checkpoint


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe"))
    return load_model(str(folder), device="cpu", dtype="float32")
