"""Names of models on a hub."""

from __future__ import annotations

import pytest

from bh_studio.engine.hub.source import KNOWN_MODELS, HubSource, parse_hub_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("allenai/OLMoE-1B-7B-0924", HubSource("allenai/OLMoE-1B-7B-0924")),
        ("owner/name@main", HubSource("owner/name", "main")),
        ("o_1/n.a-m_e@refs/pr/12", HubSource("o_1/n.a-m_e", "refs/pr/12")),
        ("owner/name@v1.0+cpu", HubSource("owner/name", "v1.0+cpu")),
        ("owner/name@" + "0a" * 20, HubSource("owner/name", "0a" * 20)),
    ],
)
def test_a_name_and_its_text(text: str, source: HubSource) -> None:
    assert parse_hub_source(text) == source
    assert str(source) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "embedded",
        "name",
        "owner/",
        "/name",
        "owner/name/more",
        "../name",
        "owner/..",
        "owner/na..me",
        "owner/na--me",
        "-owner/name",
        "owner/name.",
        "owner/na me",
        "owner\\name",
        "owner/name@",
        "owner/name@../../x",
        "owner/name@a//b",
        "owner/name@/etc",
        "owner/name@-x",
        "owner/name@a b",
        "owner/name@a@b",
        "owner/näme",
        "owner/name\n",
        "https://example.org/owner/name",
        "o/" + "n" * 200,
    ],
)
def test_what_is_no_name(text: str) -> None:
    assert parse_hub_source(text) is None


def test_only_a_whole_commit_never_changes() -> None:
    assert HubSource("owner/name", "0a" * 20).commit == "0a" * 20
    assert HubSource("owner/name", "0a" * 19).commit == ""
    assert HubSource("owner/name").commit == ""


def test_known_models_are_names() -> None:
    for known in KNOWN_MODELS:
        assert parse_hub_source(str(known.source)) == known.source
        assert known.description
