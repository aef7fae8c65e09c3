"""A tiny model and its null, shared because neither is ever changed by a test that restores."""

from __future__ import annotations

import pytest
import torch
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.routing.recordings import Recording
from tests.tiny_olmoe import tiny_model, tiny_tokenizer

# Products of this size are not worth a second thread, least of all on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture
def model() -> OlmoeForCausalLM:
    return tiny_model()


@pytest.fixture(scope="session")
def recording(tokenizer: PreTrainedTokenizerFast) -> Recording:
    return make_recording(tiny_model(), tokenizer, calibration_text()[:4000])
