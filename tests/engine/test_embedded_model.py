"""The model that ships: loads the ordinary way, answers like transformers, routes as documented."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, OlmoeForCausalLM

from bh_studio import paths
from bh_studio.engine.decoding.detokenizer import StreamingDetokenizer
from bh_studio.engine.decoding.paths import CPU
from bh_studio.engine.decoding.side import SideDecoder
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.notebook import BHRoutingIntegration
from bh_studio.engine.protocol.events import SessionNullJudged
from bh_studio.engine.protocol.experiments import Sweep
from bh_studio.engine.protocol.requests import JudgeSessionNull
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters
from tests.engine.experiments.running import result_of

pytestmark = pytest.mark.slow

NEW_TOKENS = 32
PROMPTS = [
    "Once upon a time there was a little girl who",
    "The old man opened the door and",
    '"Where are you going?" asked the fox.',
    "In the middle of the forest stood a house",
    "The king had three sons,",
    "It was a dark night, and the ship",
    "Mother said that",
    "They ran down the hill as fast as",
    "The first thing that Dorothy saw was",
    "A bear came out of the cave",
    "On Monday morning the children",
    "There were seven boats upon the river.",
    "He had never been so happy in",
    "The wind blew, and the snow",
    '"No," said the princess, "I',
    "At last the prince",
    "Far away, beyond the mountains,",
    "The dog barked",
    "What is the use of a book without",
    "I",
]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model()


def generated(
    loaded: LoadedModel, model: OlmoeForCausalLM, prompts: Sequence[Tensor]
) -> list[list[int]]:
    """The model's own answer to each of `prompts`, of shape [1, tokens]: all in one batch."""
    longest = max(token_ids.shape[1] for token_ids in prompts)
    before = [longest - token_ids.shape[1] for token_ids in prompts]
    output = model.generate(
        torch.cat([F.pad(ids, (count, 0)) for ids, count in zip(prompts, before, strict=True)]),
        attention_mask=torch.cat(
            [
                F.pad(torch.ones_like(ids), (count, 0))
                for ids, count in zip(prompts, before, strict=True)
            ]
        ),
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=0,
    )
    return [up_to_its_end(answer, loaded.end_token_ids) for answer in output[:, longest:].tolist()]


def up_to_its_end(answer: list[int], end_token_ids: Collection[int]) -> list[int]:
    """`answer` without what fills it up to the longest of its batch."""
    ends = [number for number, token_id in enumerate(answer) if token_id in end_token_ids]
    return answer[: ends[0] + 1] if ends else answer


def own_loop(loaded: LoadedModel, model: OlmoeForCausalLM, token_ids: Tensor) -> list[int]:
    parameters = GenerationParameters(NEW_TOKENS, sampling=False)
    decoder = SideDecoder(model, token_ids, parameters, loaded.end_token_ids, loaded.shape)
    found = []
    while True:
        step = decoder.step()
        found.append(step.token_id)
        if step.finish_reason is not None:
            return found


def test_it_is_an_ordinary_checkpoint() -> None:
    folder = paths.resource("models/olmoe-nano")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = model.config
    assert type(model) is OlmoeForCausalLM
    assert (config.num_hidden_layers, config.num_experts, config.num_experts_per_tok) == (16, 64, 8)
    assert config.norm_topk_prob is False
    assert model.dtype == torch.bfloat16
    for text in ("Once upon a time", "emoji 😀 and 日本語", "  two  spaces\n\tand a tab"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    files = [file for file in folder.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 32_000_000
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".md"}
    assert "auto_map" not in json.loads((folder / "config.json").read_text())


def test_bfloat16_answers_part_from_generate_only_where_it_hardly_decides(
    loaded: LoadedModel,
) -> None:
    model = load_model(dtype="bfloat16").model
    prompts = [loaded.tokenizer(prompt, return_tensors="pt").input_ids for prompt in PROMPTS[::3]]
    for token_ids, expected in zip(prompts, generated(loaded, model, prompts), strict=True):
        found = own_loop(loaded, model, token_ids)
        same = next((n for n in range(len(found)) if found[n] != expected[n]), None)
        if same is None:
            continue
        text = torch.cat([token_ids, torch.tensor([found[:same]], dtype=torch.int64)], dim=1)
        with torch.inference_mode():
            logits = model(text).logits[0, -1].float()
        # Logits here are 6 to 10, where bfloat16 has steps of 0.03 and 0.06.
        assert logits[expected[same]] - logits[found[same]] < 0.25, loaded.tokenizer.decode(text[0])


def test_greedy_answers_equal_those_of_the_untouched_model(loaded: LoadedModel) -> None:
    folder = paths.resource("models/olmoe-nano")
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert loaded.info.decode_path == CPU
    assert loaded.info.norm_topk_prob is stock.config.norm_topk_prob
    prompts = [loaded.tokenizer(prompt, return_tensors="pt").input_ids for prompt in PROMPTS]
    expected = generated(loaded, stock, prompts)
    assert [own_loop(loaded, loaded.model, token_ids) for token_ids in prompts] == expected


def test_analyze_and_the_identity_rule_change_no_bit(loaded: LoadedModel) -> None:
    token_ids = loaded.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    with torch.inference_mode():
        stock = loaded.model(token_ids).logits
        for parameters in ({"mode": "analyze"}, {"min_k": 8}):
            with BHRoutingIntegration(loaded.model, recording=loaded.recording, **parameters):
                assert torch.equal(loaded.model(token_ids).logits, stock)
        assert torch.equal(loaded.model(token_ids).logits, stock)


def test_alpha_gives_the_expert_counts_that_the_manual_promises(loaded: LoadedModel) -> None:
    definition = Sweep(
        prompts=tuple(PROMPTS[:6]),
        sides=(None, RuleParameters(level=0.05), RuleParameters(level=0.005)),
        generation=GenerationParameters(NEW_TOKENS, sampling=False),
    )
    counts: dict[float | None, list[float]] = {}
    for row in result_of(loaded, definition).rows():
        counts.setdefault(row.alpha, []).append(row.answer.statistics.mean)
    means = {alpha: sum(found) / len(PROMPTS[:6]) for alpha, found in counts.items()}
    assert 4 < means[0.05] < 7
    assert means[0.005] < means[0.05] - 0.3


@pytest.mark.parametrize("text", ["snow ☃ and 😀👨‍👩‍👧", "日本語 中文 한국어", "naïve café"])
def test_streamed_text_is_never_broken(text: str, loaded: LoadedModel) -> None:
    detokenizer = StreamingDetokenizer(
        loaded.tokenizer, loaded.tokenizer("Once upon a time").input_ids
    )
    shown = ""
    for token_id in loaded.tokenizer(text).input_ids:
        shown += detokenizer.add(token_id)
        assert text.startswith(shown)
    assert shown + detokenizer.finish() == text


def test_its_null_fits_in_every_layer_as_documented(loaded: LoadedModel) -> None:
    asked = JudgeSessionNull(loaded.info, RuleParameters())
    (event,) = Clerk().answer(asked, CancelToken())
    assert isinstance(event, SessionNullJudged)
    fit = event.fit
    distances = [layer.ks_distance for layer in fit.layers]
    assert (round(min(distances), 3), round(max(distances), 3)) == (0.003, 0.027)
    assert fit.needed_p == (0.05 / 64,) * 16
    assert not any(fit.selects_no_single_expert)
