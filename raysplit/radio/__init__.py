"""The radio: from SNR to rate, block errors, HARQ and delay; fading in time, places, traces.

NumPy alone, no tensors. Assumptions and sources: docs/radio.md.

    cell = load_cell("lte")
    snr_db = snr_path_db(ChannelConfig(), cell, 12.0, steps=1000, rng=rng)
    sent = simulate_transfers(snr_db, ideal_mcs(snr_db, cell.grid), starts, 17_408, cell, rng)
    link = digital_link(12.0, 17_408, cell, deadline_ms=50)
"""

from raysplit.radio.adaptation import (
    OuterLoopConfig,
    OuterLoopRun,
    ideal_mcs,
    ideal_on_subcarriers,
    mcs_at_target,
    outer_loop,
)
from raysplit.radio.bler import block_error_rate, snr_db_at
from raysplit.radio.cell import Cell, cell_names, load_cell, load_place, place_names
from raysplit.radio.channel import ChannelConfig, mean_snr_db, rsrp_to_snr_db, snr_path_db
from raysplit.radio.digital import DigitalLink, digital_link
from raysplit.radio.eesm import effective_snr_db
from raysplit.radio.fading import FadingConfig, doppler_hz, fading_gains, jakes_correlation
from raysplit.radio.harq import (
    HarqConfig,
    attempts_before,
    failures,
    mean_attempts,
    packet_loss,
    residual_error_rate,
)
from raysplit.radio.mcs import EFFICIENCY, ResourceGrid, rate_mbit_s
from raysplit.radio.place import Place
from raysplit.radio.reading import read_mahimahi, read_table_trace, read_trace_file
from raysplit.radio.tdl import PROFILES, PowerDelayProfile, frequency_response, tdl_gains
from raysplit.radio.trace import Quantity, Steps, Trace, capacity_mbit_s
from raysplit.radio.transfer import Transfers, simulate_transfers

__all__ = [
    "EFFICIENCY",
    "PROFILES",
    "Cell",
    "ChannelConfig",
    "DigitalLink",
    "FadingConfig",
    "HarqConfig",
    "OuterLoopConfig",
    "OuterLoopRun",
    "Place",
    "PowerDelayProfile",
    "Quantity",
    "ResourceGrid",
    "Steps",
    "Trace",
    "Transfers",
    "attempts_before",
    "block_error_rate",
    "capacity_mbit_s",
    "cell_names",
    "digital_link",
    "doppler_hz",
    "effective_snr_db",
    "fading_gains",
    "failures",
    "frequency_response",
    "ideal_mcs",
    "ideal_on_subcarriers",
    "jakes_correlation",
    "load_cell",
    "load_place",
    "mcs_at_target",
    "mean_attempts",
    "mean_snr_db",
    "outer_loop",
    "packet_loss",
    "place_names",
    "rate_mbit_s",
    "read_mahimahi",
    "read_table_trace",
    "read_trace_file",
    "residual_error_rate",
    "rsrp_to_snr_db",
    "simulate_transfers",
    "snr_db_at",
    "snr_path_db",
    "tdl_gains",
]
