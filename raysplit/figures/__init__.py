"""Figures: one function a figure, from plain records to a matplotlib `Figure`.

`save` writes a figure as PNG, PDF and SVG; colours, fonts and labels are those of `style`.
"""

# ruff: noqa: E402 - matplotlib looks for its folder while it is imported
from raysplit.figures.matplotlib_folder import give_matplotlib_a_folder

give_matplotlib_a_folder()

from raysplit.figures.answer import AnswerLine, AnswerPlane, answer_line, answer_plane
from raysplit.figures.budget import (
    OptimumTerms,
    TimeStack,
    TradePanel,
    TradeSeries,
    optimum_terms,
    time_stacks,
    trade_offs,
)
from raysplit.figures.capacity import link_trace
from raysplit.figures.codecs import CodecCurve, CodecMap, codec_map
from raysplit.figures.comparison import EpisodeReturns, returns_and_intervals, violins
from raysplit.figures.evaluations import EvaluationCurves, share_by_evaluations
from raysplit.figures.learning import (
    LearningPanel,
    SweepPanel,
    hyperparameter_panels,
    learning_curves,
)
from raysplit.figures.over_seeds import band_over_seeds
from raysplit.figures.parity import surrogate_parity
from raysplit.figures.perplexity import PPLCurve, PPLPanel, ppl_against_split_point
from raysplit.figures.saving import save
from raysplit.figures.style import (
    Band,
    coordinate_label,
    coordinate_unit,
    coordinate_value,
    distinct_colours,
    note_above,
)
from raysplit.figures.trend import Decisions, Trend, split_point_trend, trend
from raysplit.figures.walk import TraceWalk, trace_walk
from raysplit.figures.weight import CostWeightSweep, cost_weight_sweep

__all__ = [
    "AnswerLine",
    "AnswerPlane",
    "Band",
    "CodecCurve",
    "CodecMap",
    "CostWeightSweep",
    "Decisions",
    "EpisodeReturns",
    "EvaluationCurves",
    "LearningPanel",
    "OptimumTerms",
    "PPLCurve",
    "PPLPanel",
    "SweepPanel",
    "TimeStack",
    "TraceWalk",
    "TradePanel",
    "TradeSeries",
    "Trend",
    "answer_line",
    "answer_plane",
    "band_over_seeds",
    "codec_map",
    "coordinate_label",
    "coordinate_unit",
    "coordinate_value",
    "cost_weight_sweep",
    "distinct_colours",
    "hyperparameter_panels",
    "learning_curves",
    "link_trace",
    "note_above",
    "optimum_terms",
    "ppl_against_split_point",
    "returns_and_intervals",
    "save",
    "share_by_evaluations",
    "split_point_trend",
    "surrogate_parity",
    "time_stacks",
    "trace_walk",
    "trade_offs",
    "trend",
    "violins",
]
