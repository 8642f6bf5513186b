"""The paper's Fig. 6: what each policy's episodes on measured perplexity were worth."""

# pandas leaves the types of what is selected open:
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

from __future__ import annotations

import numpy as np
import pandas as pd

from raysplit.base.arrays import FloatArray
from raysplit.figures import EpisodeReturns
from raysplit.pipeline.episodes import EPISODES_TABLE
from raysplit.pipeline.run_folder import RunFolder


def episode_returns(folder: RunFolder, optimal_return: float) -> EpisodeReturns:
    """Read the table for the figure: agents first, what they were before training, random."""
    table = pd.read_parquet(folder.path / EPISODES_TABLE)
    returns: dict[str, FloatArray] = {}
    for kind, prefix in (("agent", ""), ("untrained", "untrained "), ("random", "")):
        part = table[table["kind"] == kind]
        for name in dict.fromkeys(part["policy"]):
            played = part.loc[part["policy"] == name, "return"].to_numpy()
            # Agents that differ in their rewards only begin with the same networks.
            if not (prefix and any(np.array_equal(played, other) for other in returns.values())):
                returns[f"{prefix}{name}"] = played
    optimum = table.loc[table["kind"] == "optimum", "return"].to_numpy()
    return EpisodeReturns(
        returns=returns,
        optimal_return=optimal_return,
        optimum_N=optimum if len(optimum) else None,
    )
