"""Which way a model decodes, why, and the step that does it."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from bh_studio.engine.decoding.cpu_step import CpuStep
from bh_studio.engine.decoding.olmoe_layers import layout_problem
from bh_studio.engine.decoding.pass_recorder import PassRecorder
from bh_studio.engine.decoding.step import Choose, DecodeStep
from bh_studio.engine.decoding.stock_step import StockStep
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.rules.parameters import RouterShape

STOCK = "transformers' forward"
CPU = "own forward on the CPU"
GRAPH = "transformers' forward in a CUDA graph"
GPU = "own kernels on the GPU"


@dataclass(frozen=True, slots=True)
class DecodePath:
    """How tokens after the prompt are computed, in words for people.

    name: STOCK, GRAPH, CPU or GPU. reason: why not one of the faster ones; empty if it is one.
    """

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


def decode_path(model: PreTrainedModel) -> DecodePath:
    """How `model` decodes, as it is now: hooks and replaced modules change the answer."""
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) > 1:
        return DecodePath(STOCK, "the layers lie on several devices")
    kind = devices.pop().type
    if kind == "cuda":
        from bh_studio.engine.decoding import gpu_step, stock_graph_step

        problem = gpu_step.problem(model)
        if not problem:
            return DecodePath(GPU)
        stock_problem = stock_graph_step.problem(model)
        return DecodePath(STOCK, stock_problem) if stock_problem else DecodePath(GRAPH, problem)
    if kind != "cpu":
        return DecodePath(STOCK, f"the model is on {kind}")
    problem = layout_problem(model)
    return DecodePath(STOCK, problem) if problem else DecodePath(CPU)


def open_step(
    model: PreTrainedModel,
    shape: RouterShape,
    integration: RoutingIntegration | None,
    choose: Choose | None,
    recorder: PassRecorder | None = None,
) -> DecodeStep:
    """A step of one side on the way that decode_path names.

    integration: None for the baseline. choose: None for the most probable token. recorder: of the
    model, where what is decided is to be recorded, on any way.
    """
    slots = None if recorder is None else recorder.slots
    name = decode_path(model).name
    if name == GPU:
        from bh_studio.engine.decoding.gpu_step import GpuStep

        return GpuStep(model, shape, integration, choose, slots)
    if name == GRAPH:
        from bh_studio.engine.decoding.stock_graph_step import StockGraphStep

        return StockGraphStep(model, integration, choose, recorder)
    if name == CPU:
        return CpuStep(model, integration, choose, slots)
    return StockStep(model, integration, choose, recorder)
