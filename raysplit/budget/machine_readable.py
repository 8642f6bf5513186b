"""`raysplit budget --json`: every split point's costs as JSON values, in SI units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raysplit.budget.costs import Costs
from raysplit.budget.setup import Setup
from raysplit.model.sizes import Sizes


def costs_as_json(sizes: Sizes, setup: Setup, costs: Sequence[Costs]) -> dict[str, Any]:
    """Return model, setup and, for each codec, a list with an entry a split point.

    Args:
        sizes: The model's.
        setup: Phone, edge, network and request, every constant of which is written out.
        costs: One a codec.
    """
    return {
        "model": sizes.name,
        "layers": sizes.num_hidden_layers,
        "hidden_size": sizes.hidden_size,
        "setup": setup.model_dump(mode="json"),
        "codecs": {one.codec: _by_split_point(one) for one in costs},
    }


def _by_split_point(costs: Costs) -> list[dict[str, Any]]:
    columns = {
        "split_point": costs.split_points_P,
        "fits": costs.fits_P,
        "ttft_s": costs.ttft_s_P,
        "prompt_ue_s": costs.prefill.ue_s_P,
        "prompt_air_s": costs.prefill.air_s_P,
        "prompt_edge_s": costs.prefill.edge_s_P,
        "tpot_s": costs.tpot_s_P,
        "ue_energy_j": costs.ue_energy_j_P,
        "bits": costs.bits_P,
        "ue_memory_bytes": costs.ue_memory_bytes_P,
        "edge_memory_bytes": costs.edge_memory_bytes_P,
    }
    rows = zip(*(values_P.tolist() for values_P in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
