"""Which laboratory runs which experiment with a model. Knows no loop and no row."""

from __future__ import annotations

from typing import Any

from bh_studio.engine.experiments.batch import BatchLaboratory
from bh_studio.engine.experiments.benchmark.benchmark import BenchmarkLaboratory
from bh_studio.engine.experiments.budget.budget import BudgetLaboratory
from bh_studio.engine.experiments.comparison import ComparisonLaboratory
from bh_studio.engine.experiments.evaluation.evaluation import EvaluationLaboratory
from bh_studio.engine.experiments.recording import CalibrationLaboratory
from bh_studio.engine.experiments.same_text import SameTextLaboratory
from bh_studio.engine.experiments.sweep import SweepLaboratory
from bh_studio.engine.protocol.experiments import (
    Batch,
    Benchmark,
    Budget,
    Calibration,
    Comparison,
    Evaluation,
    SameText,
    Sweep,
)

LABORATORIES: dict[type[Any], Any] = {
    Batch: BatchLaboratory,
    Benchmark: BenchmarkLaboratory,
    Budget: BudgetLaboratory,
    Calibration: CalibrationLaboratory,
    Comparison: ComparisonLaboratory,
    Evaluation: EvaluationLaboratory,
    SameText: SameTextLaboratory,
    Sweep: SweepLaboratory,
}
