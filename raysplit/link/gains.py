"""Draw fading gains on a device; their closed forms are in `raysplit.link.fading`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raysplit.link.config import LinkConfig


def draw_gains(
    config: LinkConfig, fading_scale: float, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Draw independent gains h, float32, on the generator's device.

    The numbers drawn do not depend on `fading_scale`: under the same seed a larger scale makes
    every gain larger in proportion, so a packet lost at one scale is lost at every smaller one.
    """
    root_mean_square = math.sqrt(2) * fading_scale
    empty = torch.empty(shape, dtype=torch.float32, device=generator.device)
    match config.fading:
        case "none":
            return torch.ones((), dtype=torch.float32, device=generator.device).expand(shape)
        case "rayleigh":
            return empty.exponential_(generator=generator).sqrt_().mul_(root_mean_square)
        case "rician":
            # |direct + scattered|; each scattered component has half the scattered power.
            k = config.rician_k
            in_phase = empty.normal_(math.sqrt(2 * k), 1.0, generator=generator)
            quadrature = torch.empty_like(empty).normal_(generator=generator)
            return torch.hypot(in_phase, quadrature).mul_(root_mean_square / math.sqrt(2 * (k + 1)))
        case "nakagami":
            m = config.nakagami_m
            # torch.distributions.Gamma takes no generator; this is the operator that it calls.
            standard_gamma = torch._standard_gamma  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            power = standard_gamma(empty.fill_(m), generator=generator)
            return power.div_(m).sqrt_().mul_(root_mean_square)
