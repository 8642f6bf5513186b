"""What kind of link it is: everything that stays the same while its state changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator

from raysplit.base.config import Config
from raysplit.base.errors import UserError
from raysplit.link.state import check_coordinates

Fading = Literal["none", "rayleigh", "rician", "nakagami"]


class LinkConfig(Config):
    """The physics of the link, Eq. 3 and Eq. 4 of the paper, and what the edge makes of it.

    Attributes:
        mode: `analogue`: noise and fading land on the hidden states (Eq. 3). `digital`: they
            travel as bits; the problem varies the `snr_db` of the radio, which gives rate, delay
            and the loss of a token's packet (the experiment's section `radio`).
        fading: Distribution of the gain h; `none` is h = 1.
        packet: What shares one gain and is lost as one: a token's hidden vector, a whole sentence,
            or a single element of a hidden vector (with `loss_probability` alone: the authors'
            code).
        gain_threshold: h_th of Eq. 4: a packet with h below it is lost. Needs fading.
        equaliser: `none` hands h*y + n on, as the paper does; `zero_forcing` divides it by h.
        concealment: What stands for a lost packet: zeros, the last packet received before it in its
            sentence (zeros where there is none), or the corpus' mean hidden state.
        rician_k: Power of the direct path over that of the scattered ones, used by `rician`, at
            least 0; 0 is Rayleigh.
        nakagami_m: Shape m of `nakagami`, at least 0.5; 1 is Rayleigh.
        exempt_prefix: The first position of a sequence is the token that `protocol.prefix` puts
            there; it is the same everywhere, so the edge computes it itself and it is never
            transmitted. Without a prefix there is nothing to exempt.
    """

    mode: Literal["analogue", "digital"] = "analogue"
    fading: Fading = "none"
    packet: Literal["token", "sentence", "element"] = "token"
    gain_threshold: float = 0.0
    equaliser: Literal["none", "zero_forcing"] = "none"
    concealment: Literal["zeros", "hold_last", "corpus_mean"] = "zeros"
    rician_k: float = 4.0
    nakagami_m: float = 2.0
    exempt_prefix: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, low in (("gain_threshold", 0.0), ("rician_k", 0.0), ("nakagami_m", 0.5)):
            if (value := getattr(self, name)) < low:
                raise ValueError(f"{name}={value:g} is not possible: it must be at least {low:g}")
        if self.fading == "none" and self.gain_threshold > 0:
            raise ValueError(
                f"gain_threshold={self.gain_threshold:g} has no effect without fading (h = 1): "
                "choose a fading, or set loss_probability in the link's state"
            )
        if self.packet == "sentence" and self.concealment == "hold_last":
            raise ValueError(
                "concealment=hold_last has nothing to hold when packet=sentence: "
                "choose another concealment, or a smaller packet"
            )
        if self.mode == "digital" and (self.fading != "none" or self.packet != "token"):
            raise ValueError(
                "link.mode: digital loses the packets of single tokens, and fading is the radio's: "
                "leave fading and packet out, or take link.mode: analogue"
            )
        return self

    def check_coordinates(self, names: Sequence[str]) -> None:
        """Refuse coordinates that are unknown or that this kind of link ignores.

        Raises:
            UserError: With the name, the rule and the remedy.
        """
        check_coordinates(names)
        if self.fading == "none" and "fading_scale" in names:
            raise UserError(
                "fading_scale has no effect with fading=none: "
                "choose a fading, or vary noise_std or loss_probability"
            )
        if "outage_probability" in names and (self.fading == "none" or self.gain_threshold == 0):
            raise UserError(
                f"fading={self.fading} with gain_threshold={self.gain_threshold:g} never loses a "
                "packet: set both for outage_probability, or vary loss_probability instead"
            )
