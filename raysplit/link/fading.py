"""Closed forms of the outage that the fading gain h causes (Eq. 4 and its likes), both ways.

Every distribution is scaled to the same mean square, E[h^2] = 2 sigma_h^2 with sigma_h the state's
`fading_scale`: the one that Eq. 3's Rayleigh gain has. So one scale means one average power
whatever the distribution, and Rician with K = 0 and Nakagami with m = 1 are the Rayleigh gain
itself. Needs no torch.

    distribution   P(h < x), with q = x^2 / (2 sigma_h^2)
    Rayleigh       1 - exp(-q)                             (Eq. 4)
    Rician         noncentral chi-square(2 (K + 1) q; 2, 2 K)
    Nakagami       regularised lower gamma(m, m q)
"""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math

from raysplit.link.config import LinkConfig
from raysplit.link.state import check_value


def outage_probability(config: LinkConfig, fading_scale: float) -> float:
    """Return the probability P(h < h_th) that the fading loses a packet (Eq. 4)."""
    power_ratio = config.gain_threshold**2 / (2 * fading_scale**2)
    match config.fading:
        case "none":
            return 0.0
        case "rayleigh":
            return -math.expm1(-power_ratio)
        case "rician":
            from scipy import special

            k = config.rician_k
            return float(special.chndtr(2 * (k + 1) * power_ratio, 2, 2 * k))
        case "nakagami":
            from scipy import special

            return float(special.gammainc(config.nakagami_m, config.nakagami_m * power_ratio))


def fading_scale_for_outage(config: LinkConfig, probability: float) -> float:
    """Return the sigma_h at which the fading loses packets with the given probability.

    Raises:
        UserError: If the probability is not inside (0, 1), or the link has no fading or no
            threshold and so never loses a packet.
    """
    check_value("outage_probability", probability)
    config.check_coordinates(("outage_probability",))
    match config.fading:
        case "rician":
            from scipy import special

            k = config.rician_k
            power_ratio = float(special.chndtrix(probability, 2, 2 * k)) / (2 * (k + 1))
        case "nakagami":
            from scipy import special

            m = config.nakagami_m
            power_ratio = float(special.gammaincinv(m, probability)) / m
        case _:  # Rayleigh: a link without fading is refused above
            power_ratio = -math.log1p(-probability)
    return config.gain_threshold / math.sqrt(2 * power_ratio)
