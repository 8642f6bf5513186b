"""What a split costs: bits on the air, seconds, joules and memory, computed and not measured.

    sizes = sizes_of("llama2-7b")                                       # raysplit.model.sizes
    setup = load_setup("flagship", "h100", "lte", prompt_tokens=512, output_tokens=128)
    costs = split_costs(sizes, setup, "int4-rotated/64")                # arrays over p = 1..L
    costs.ttft_s_P, costs.tpot_s_P, costs.ue_energy_j_P, costs.fits_P
    moving_costs(sizes, setup, "int4-rotated/64", context_tokens=640)   # what one step of p costs

No tensors and no torch. `docs/budget.md` has the formulas, their units and their sources.
"""

from raysplit.budget.bits import bits_per_token
from raysplit.budget.costs import Costs, Passes, split_costs
from raysplit.budget.moving import Move, MovingCosts, moving_costs
from raysplit.budget.presets import load_setup
from raysplit.budget.setup import Edge, Network, Phone, Request, Setup

__all__ = [
    "Costs",
    "Edge",
    "Move",
    "MovingCosts",
    "Network",
    "Passes",
    "Phone",
    "Request",
    "Setup",
    "bits_per_token",
    "load_setup",
    "moving_costs",
    "split_costs",
]
