"""The tiny model, loaded as the program loads it."""

from __future__ import annotations

import pytest

from bh_studio.engine.loading import LoadedModel, load_model
from tests.tiny_olmoe import save_tiny_checkpoint


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe"))))
