"""Closed forms of the fading gain h: outage (Eq. 4 and its likes), its inverse, and the moments.

Every distribution is scaled to the same mean square, E[h^2] = 2 sigma_h^2 with sigma_h the state's
`fading_scale`: the one that Eq. 3's Rayleigh gain has. So one scale means one average power
whatever the distribution, and Rician with K = 0 and Nakagami with m = 1 are the Rayleigh gain
itself. Needs no torch.

    distribution   P(h < x), with q = x^2 / (2 sigma_h^2)           E[h] / sqrt(2 sigma_h^2)
    Rayleigh       1 - exp(-q)                             (Eq. 4)  sqrt(pi) / 2
    Rician         noncentral chi-square(2 (K + 1) q; 2, 2 K)       sqrt(pi / (4 (K + 1))) L(-K)
    Nakagami       regularised lower gamma(m, m q)                  Gamma(m + 1/2) / (Gamma(m)
    sqrt(m))

with L the Laguerre function of order 1/2.
"""

# scipy ships no type information:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math

from scipy import special

from raysplit.base.errors import UserError
from raysplit.link.config import LinkConfig


def outage_probability(config: LinkConfig, fading_scale: float) -> float:
    """Return the probability P(h < h_th) that the fading loses a packet (Eq. 4)."""
    power_ratio = config.gain_threshold**2 / (2 * fading_scale**2)
    match config.fading:
        case "none":
            return 0.0
        case "rayleigh":
            return -math.expm1(-power_ratio)
        case "rician":
            k = config.rician_k
            return float(special.chndtr(2 * (k + 1) * power_ratio, 2, 2 * k))
        case "nakagami":
            return float(special.gammainc(config.nakagami_m, config.nakagami_m * power_ratio))


def fading_scale_for_outage(config: LinkConfig, probability: float) -> float:
    """Return the sigma_h at which the fading loses packets with the given probability.

    Raises:
        UserError: If the probability is not inside (0, 1), or the link has no fading or no
            threshold and so never loses a packet.
    """
    if not 0 < probability < 1:
        raise UserError(
            f"outage probability {probability:g} belongs to no fading_scale: "
            "it must lie inside (0, 1)"
        )
    if config.fading == "none" or config.gain_threshold == 0:
        raise UserError(
            f"fading={config.fading} with gain_threshold={config.gain_threshold:g} never loses a "
            "packet: set both, or vary loss_probability instead"
        )
    match config.fading:
        case "rayleigh":
            power_ratio = -math.log1p(-probability)
        case "rician":
            k = config.rician_k
            power_ratio = float(special.chndtrix(probability, 2, 2 * k)) / (2 * (k + 1))
        case "nakagami":
            m = config.nakagami_m
            power_ratio = float(special.gammaincinv(m, probability)) / m
    return config.gain_threshold / math.sqrt(2 * power_ratio)


def gain_mean(config: LinkConfig, fading_scale: float) -> float:
    """Return E[h]."""
    root_mean_square = math.sqrt(gain_mean_square(config, fading_scale))
    match config.fading:
        case "none":
            return 1.0
        case "rayleigh":
            return root_mean_square * math.sqrt(math.pi) / 2
        case "rician":
            k = config.rician_k
            # The Laguerre function in exponentially scaled Bessel functions, finite for any K.
            laguerre = (1 + k) * special.ive(0, k / 2) + k * special.ive(1, k / 2)
            return root_mean_square * math.sqrt(math.pi / (4 * (k + 1))) * float(laguerre)
        case "nakagami":
            m = config.nakagami_m
            return root_mean_square * float(special.poch(m, 0.5)) / math.sqrt(m)


def gain_mean_square(config: LinkConfig, fading_scale: float) -> float:
    """Return E[h^2]: 2 sigma_h^2, and 1 without fading."""
    return 1.0 if config.fading == "none" else 2 * fading_scale**2
