"""Recordings: what is in them, what thresholds follow, and files from elsewhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.calibration.recorder import (
    SKIPPED_POSITIONS,
    Reading,
    calibration_text,
    make_recording,
    recording_for,
    recording_in_steps,
    router_logits_of,
)
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.moe.fingerprint import check_recording, model_fingerprint
from bh_studio.engine.records.recording import RecordingError
from bh_studio.engine.routing.nulls import EmpiricalNull, null_model
from bh_studio.engine.routing.recordings import (
    Recording,
    checked_logits,
    load_recording,
    load_router_logits,
    save_recording,
)
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.rules.parameters import NullName, ScoreName
from tests.damaged_arrays import WAYS, bomb, little_memory, unpacks_to_more_than_it_says
from tests.tiny_olmoe import CONTEXT, EXPERTS, LAYERS, TOP_K, tiny_model


def discarded(recording: Recording, temperature: float = 1.0) -> EmpiricalNull:
    model = null_model(NullName.DISCARDED, recording, Scorer(ScoreName.PROBABILITY, temperature))
    assert isinstance(model, EmpiricalNull)
    return model


def test_the_null_is_what_the_router_discards(recording: Recording) -> None:
    probabilities = torch.softmax(recording.logits, dim=-1)
    lowest = probabilities.sort(dim=-1).values[..., : EXPERTS - TOP_K]
    expected = lowest.flatten(1).sort(dim=1).values
    torch.testing.assert_close(discarded(recording).sorted_scores, expected, rtol=0, atol=0)
    assert recording.samples == discarded(recording).samples == expected.shape[1]


def test_recorded_logits_are_the_routers_own(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    token_ids = tokenizer("The old mill stood by the river.", return_tensors="pt").input_ids[0]
    recorded = router_logits_of(model, token_ids)
    with torch.inference_mode():
        expected = torch.stack(model(token_ids[None], output_router_logits=True).router_logits)
    assert recorded.shape == (LAYERS, len(token_ids) - SKIPPED_POSITIONS, EXPERTS)
    torch.testing.assert_close(recorded, expected[:, SKIPPED_POSITIONS:], rtol=0, atol=0)


def test_windows_leave_out_their_first_positions(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    # Two whole windows, one of 10 tokens and one too short to keep.
    reading = Reading(model, tokenizer, ["a" * (2 * CONTEXT + 10), "abc"])
    rows = [reading.record(number) for number in range(len(reading.windows))]
    recording = reading.joined(rows, [])
    assert recording.origin.tokens == 2 * CONTEXT + 10 - 3 * SKIPPED_POSITIONS


def test_temperature_changes_the_scores(recording: Recording) -> None:
    softened = discarded(recording, 4.0).sorted_scores
    assert softened.mean() > discarded(recording).sorted_scores.mean()
    expected = (
        torch.softmax(recording.logits / 4, dim=-1).sort(dim=-1).values[..., : EXPERTS - TOP_K]
    )
    torch.testing.assert_close(softened, expected.flatten(1).sort(dim=1).values, rtol=0, atol=0)


def test_a_null_survives_its_file(recording: Recording, tmp_path: Path) -> None:
    save_recording(recording, tmp_path / "deep" / "null.npz")
    again = load_recording(tmp_path / "deep" / "null.npz")
    assert again.origin == recording.origin
    assert again.sha256 == recording.sha256
    torch.testing.assert_close(again.logits, recording.logits, rtol=0, atol=0)


def test_its_logits_can_be_replayed(recording: Recording, tmp_path: Path) -> None:
    save_recording(recording, tmp_path / "null.npz")
    found = load_router_logits(tmp_path / "null.npz")
    assert torch.equal(found.logits, recording.logits)
    assert found.recording is not None
    assert found.recording.sha256 == recording.sha256


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_bare_array_becomes_float32(dtype: str, order: Any, tmp_path: Path) -> None:
    logits = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order=order)
    np.savez(tmp_path / "bare.npz", logits=logits)
    found = load_router_logits(tmp_path / "bare.npz")
    assert found.recording is None
    assert found.logits.dtype == torch.float32
    assert found.logits.is_contiguous()
    assert found.logits.tolist() == logits.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_a_model_in_any_format_become_float32(dtype: torch.dtype) -> None:
    logits = torch.arange(24, dtype=dtype).reshape(2, 3, 4)
    assert checked_logits(logits).dtype == torch.float32
    assert torch.equal(checked_logits(logits), logits.float())
    with pytest.raises(ValueError, match=r"got int32 \(2, 3, 4\)"):
        checked_logits(logits.int())
    logits[1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match="1 router logits are not finite"):
        checked_logits(logits)


def test_what_scores_multiply_with_survives_its_file(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "null.npz"
    generator = torch.Generator().manual_seed(0)
    factors = {
        score: torch.rand(LAYERS, EXPERTS, generator=generator)
        for score in ScoreName
        if score.has_factor
    }
    measured = dataclasses.replace(recording, factors=factors)
    save_recording(measured, path)
    again = load_recording(path)
    assert again.factors.keys() == factors.keys()
    for score, factor in factors.items():
        assert torch.equal(again.factors[score], factor)
    assert again.sha256 == measured.sha256
    assert measured.sha256 != dataclasses.replace(recording, factors={}).sha256
    for wrong, message in (
        (torch.ones(LAYERS, EXPERTS - 1), r"output is \(3, 15\), not \(3, 16\)"),
        (torch.ones(LAYERS + 1, EXPERTS), r"output is \(4, 16\), not \(3, 16\)"),
        (torch.full((LAYERS, EXPERTS), torch.nan), "finite"),
    ):
        save_recording(dataclasses.replace(recording, factors={ScoreName.OUTPUT: wrong}), path)
        with pytest.raises(RecordingError, match=message):
            load_recording(path)


def test_factors_are_measured_where_they_are_asked_for(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    text = calibration_text()[:600]
    plain = make_recording(model, tokenizer, text)
    assert not plain.factors
    measured = make_recording(model, tokenizer, text, factors=[ScoreName.OUTPUT])
    assert measured.factors.keys() == {ScoreName.OUTPUT}
    assert measured.factors[ScoreName.OUTPUT].shape == (LAYERS, EXPERTS)
    torch.testing.assert_close(measured.logits, plain.logits, rtol=0, atol=0)


def test_a_file_of_another_version_is_refused_by_name(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "null.npz"
    save_recording(recording, path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays.pop("header")))
    for version in (1, header["format_version"] + 1):
        np.savez(path, header=json.dumps({**header, "format_version": version}), **arrays)
        with pytest.raises(RecordingError, match=r"null\.npz was written by another version"):
            load_recording(path)


def test_damaged_files_are_refused(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "null.npz"
    path.write_bytes(b"not a null")
    with pytest.raises(RecordingError, match=r"null\.npz"):
        load_recording(path)
    np.savez(path, logits=np.array([{"a": 1}], dtype=object), header=np.array("{}"))
    with pytest.raises(RecordingError, match=r"null\.npz"):
        load_recording(path)
    save_recording(
        dataclasses.replace(recording, logits=torch.full_like(recording.logits, torch.nan)), path
    )
    with pytest.raises(RecordingError, match="finite"):
        load_recording(path)
    save_recording(dataclasses.replace(recording, logits=recording.logits[:, :-1]), path)
    with pytest.raises(RecordingError, match="header"):
        load_recording(path)


@pytest.mark.parametrize("member", ["logits.npy", "header.npy"])
@pytest.mark.parametrize("way", WAYS)
def test_damaged_arrays_are_named_and_not_unpacked(
    way: str, member: str, recording: Recording, tmp_path: Path
) -> None:
    path = tmp_path / "null.npz"
    save_recording(recording, path)
    path.write_bytes(WAYS[way](path.read_bytes(), member))
    with little_memory(), pytest.raises(RecordingError, match=r"^null\.npz is damaged: .*\.$"):
        load_recording(path)


def test_logits_that_are_all_alike_are_not_unpacked(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "null.npz"
    save_recording(recording, path)
    path.write_bytes(bomb(path.read_bytes(), "logits.npy"))
    with (
        little_memory(),
        pytest.raises(RecordingError, match=r"^null\.npz is damaged: logits\.npy"),
    ):
        load_recording(path)


def test_arrays_are_unpacked_no_further_than_they_say(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "null.npz"
    save_recording(recording, path)
    path.write_bytes(unpacks_to_more_than_it_says(path.read_bytes(), "logits.npy"))
    with little_memory():
        assert load_recording(path).sha256 == recording.sha256


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("{", "not a recording of BH Studio: its header is not valid JSON"),
        ("[2]", "not a recording of BH Studio: its header names no version"),
        ('{"format_version": 2, "tokens": 5}', "'model_fingerprint' is missing"),
        ('{"format_version": 2, "tokens": "5"}', "tokens is the string '5', not a whole number"),
    ],
)
def test_a_header_that_says_something_else_is_refused(
    header: str, said: str, recording: Recording, tmp_path: Path
) -> None:
    path = tmp_path / "null.npz"
    save_recording(recording, path)
    with np.load(path) as file:
        written, logits = json.loads(str(file["header"])), file["logits"]
    if "missing" not in said and header.startswith('{"'):
        header = json.dumps(written | json.loads(header))
    np.savez(path, header=np.array(header), logits=logits)
    with pytest.raises(RecordingError, match=rf"null\.npz is .*{said}"):
        load_recording(path)


def test_a_null_of_another_model_is_refused(recording: Recording) -> None:
    check_recording(recording, tiny_model())
    with pytest.raises(RecordingError, match="another model"):
        check_recording(recording, tiny_model(seed=1))
    with pytest.raises(RecordingError, match="dtype"):
        check_recording(recording, tiny_model(dtype=torch.bfloat16))
    with pytest.raises(RecordingError, match="top 4"):
        check_recording(recording, tiny_model(top_k=2))
    other = dataclasses.replace(recording.origin, top_k=TOP_K + 1)
    with pytest.raises(RecordingError, match="top 5"):
        check_recording(dataclasses.replace(recording, origin=other), tiny_model())


def test_a_null_is_fitted_once_and_then_read(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr("bh_studio.paths.cache_dir", lambda: tmp_path)
    shares = list(recording_in_steps(model, tokenizer, CancelToken()))
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    monkeypatch.setattr(
        "bh_studio.engine.calibration.recorder.Reading", lambda *_: pytest.fail("recorded twice")
    )
    first = recording_for(model, tokenizer)
    assert recording_for(model, tokenizer).sha256 == first.sha256


def test_a_damaged_cache_is_fitted_again(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr("bh_studio.paths.cache_dir", lambda: tmp_path)
    first = recording_for(model, tokenizer)
    (path,) = (tmp_path / "nulls").iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    assert recording_for(model, tokenizer).sha256 == first.sha256
    assert load_recording(path).sha256 == first.sha256


def test_calibration_can_be_cancelled(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr("bh_studio.paths.cache_dir", lambda: tmp_path)
    cancel = CancelToken()
    steps = recording_in_steps(model, tokenizer, cancel)
    next(steps)
    cancel.cancel()
    with pytest.raises(Cancelled):
        next(steps)
    # Nothing is left behind on the model.
    assert not any(module._forward_hooks for module in model.modules())


def test_a_short_text_is_refused(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(EngineError, match="only 5 tokens"):
        make_recording(model, tokenizer, "short")


def test_routers_that_produce_nan_are_named(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    model.model.layers[1].mlp.gate.weight.data.fill_(torch.nan)
    with pytest.raises(EngineError, match="not finite"):
        make_recording(model, tokenizer, calibration_text()[:2000])


def test_the_fingerprint_sees_every_router_weight_and_no_mere_switch() -> None:
    model = tiny_model()
    first = model_fingerprint(model)
    model.config.use_cache = not model.config.use_cache
    model.config.output_router_logits = True
    assert model_fingerprint(model) == first
    weight = model.model.layers[2].mlp.gate.weight
    for place in (0, 17, weight.numel() - 1):
        before = weight.data.flatten()[place].clone()
        weight.data.view(-1)[place] += 0.5
        assert model_fingerprint(model) != first
        weight.data.view(-1)[place] = before
    assert model_fingerprint(model) == first
    model.model.layers[0].self_attn.o_proj.weight.data[:, 1:] *= 1.01
    assert model_fingerprint(model) != first
