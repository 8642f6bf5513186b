"""The measured table: one perplexity with its error bar for each split point, link state and codec.

What measuring hands to the surrogate, the figures and the table source. It holds valid rows only:
settings that failed stay in the ledger with their reason.

Shape suffixes: N rows, K link coordinates.
"""

# pyarrow ships no type information:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysplit.base.arrays import BoolArray, FloatArray, IntArray
from raysplit.base.errors import UserError
from raysplit.base.files import replacing

_OWN_COLUMNS = ("split_point", "log_ppl", "stderr", "anchor_sequences", "codec")
_ONE_CODEC = ("identity",)
_METADATA_KEY = b"raysplit.measurements"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurements:
    """Measured perplexities over split points and link states.

    Attributes:
        split_points_N: Layers on the UE, int64, at least 0.
        link_names: The link coordinates that vary, in column order (see `raysplit.link`).
        link_states_NK: Their values, float64, each in the unit that its name carries.
        log_ppl_N: Natural logarithm of the perplexity (Eq. 6).
        stderr_N: Standard error of `log_ppl_N`, at least 0.
        clean_log_ppl: The whole model's log perplexity on the same corpus over a perfect link.
        anchor_sequences_N: Sequences of the anchors that an estimate rests on besides its own, 0
            without, None where not known; written for readers of the Parquet file.
        codecs: Names of the codecs, those of all rows among them; the first is the one that
            decisions are made for.
        codecs_N: Each row's index into `codecs`, int64; None stands for zeros.

    Raises:
        UserError: If the columns do not fit together or hold a value that is not finite.
    """

    split_points_N: IntArray
    link_names: tuple[str, ...]
    link_states_NK: FloatArray
    log_ppl_N: FloatArray
    stderr_N: FloatArray
    clean_log_ppl: float
    anchor_sequences_N: IntArray | None = None
    codecs: tuple[str, ...] = _ONE_CODEC
    codecs_N: IntArray | None = None

    def __post_init__(self) -> None:
        rows, coordinates = len(self.split_points_N), len(self.link_names)
        if len(set(self.link_names) | set(_OWN_COLUMNS)) != coordinates + len(_OWN_COLUMNS):
            raise UserError(
                f"link_names={self.link_names}: names must differ, also from {_OWN_COLUMNS}"
            )
        shapes = {
            "split_points_N": (self.split_points_N, (rows,)),
            "link_states_NK": (self.link_states_NK, (rows, coordinates)),
            "log_ppl_N": (self.log_ppl_N, (rows,)),
            "stderr_N": (self.stderr_N, (rows,)),
        }
        if self.anchor_sequences_N is not None:
            shapes["anchor_sequences_N"] = (self.anchor_sequences_N, (rows,))
        if self.codecs_N is not None:
            shapes["codecs_N"] = (self.codecs_N, (rows,))
        for name, (array, expected) in shapes.items():
            if array.shape != expected:
                raise UserError(
                    f"{name} has shape {array.shape}, expected {expected}: one value for each row"
                )
            if not np.isfinite(array).all():
                raise UserError(
                    f"{name} holds NaN or infinity: leave invalid settings out of the table"
                )
        if rows and (self.split_points_N.min() < 0 or self.stderr_N.min() < 0):
            raise UserError("split points and standard errors cannot be negative")

    def __len__(self) -> int:
        return len(self.split_points_N)

    @property
    def ppl_N(self) -> FloatArray:
        """Perplexities, the exponential of `log_ppl_N`."""
        return np.exp(self.log_ppl_N)

    @property
    def codec_indices_N(self) -> IntArray:
        """Each row's index into `codecs`."""
        if self.codecs_N is not None:
            return self.codecs_N
        return np.zeros(len(self), dtype=np.int64)

    def by_codec(self) -> dict[str, Measurements]:
        """Return each codec's own table, in the order of `codecs`."""
        return {
            name: replace(self.select(self.codec_indices_N == i), codecs=(name,), codecs_N=None)
            for i, name in enumerate(self.codecs)
        }

    def select(self, rows: BoolArray | IntArray) -> Measurements:
        """Return the table of the rows named by a mask or by indices."""

        def part(values_N: IntArray | None) -> IntArray | None:
            return None if values_N is None else values_N[rows]

        return replace(
            self,
            split_points_N=self.split_points_N[rows],
            link_states_NK=self.link_states_NK[rows],
            log_ppl_N=self.log_ppl_N[rows],
            stderr_N=self.stderr_N[rows],
            anchor_sequences_N=part(self.anchor_sequences_N),
            codecs_N=part(self.codecs_N),
        )

    def to_parquet(self, path: Path) -> None:
        """Write the table; the file appears only when it is complete.

        Raises:
            UserError: If the disk is full or the folder cannot be written.
        """
        columns: dict[str, Any] = {"split_point": self.split_points_N}
        columns |= {name: self.link_states_NK[:, k] for k, name in enumerate(self.link_names)}
        columns |= {"log_ppl": self.log_ppl_N, "stderr": self.stderr_N}
        if self.anchor_sequences_N is not None:
            columns["anchor_sequences"] = self.anchor_sequences_N
        note: dict[str, Any] = {
            "link_names": self.link_names,
            "clean_log_ppl": self.clean_log_ppl,
        }
        if self.codecs != _ONE_CODEC:
            columns["codec"] = [self.codecs[i] for i in self.codec_indices_N]
            note["codecs"] = self.codecs
        table = pa.table(columns).replace_schema_metadata({_METADATA_KEY: json.dumps(note)})
        with replacing(path) as new:
            pq.write_table(table, new)

    @staticmethod
    def from_parquet(path: Path) -> Measurements:
        """Read a table that `to_parquet` wrote.

        Raises:
            UserError: If the file is missing, truncated or was not written by `to_parquet`.
        """
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{path}: cannot be read as Parquet ({error}); measure again or restore the file"
            ) from error
        metadata = (table.schema.metadata or {}).get(_METADATA_KEY)
        if metadata is None:
            raise UserError(
                f"{path}: not a table of measurements, such as the stage measure writes"
            )
        note = json.loads(metadata)
        names: tuple[str, ...] = tuple(note["link_names"])
        codecs: tuple[str, ...] = tuple(note.get("codecs", _ONE_CODEC))

        def column(name: str) -> FloatArray:
            return np.array(table.column(name), dtype=np.float64)

        states = [column(name) for name in names]
        return Measurements(
            split_points_N=np.array(table.column("split_point"), dtype=np.int64),
            link_names=names,
            link_states_NK=np.stack(states, axis=1) if states else np.empty((len(table), 0)),
            log_ppl_N=column("log_ppl"),
            stderr_N=column("stderr"),
            clean_log_ppl=note["clean_log_ppl"],
            anchor_sequences_N=np.array(table.column("anchor_sequences"), dtype=np.int64)
            if "anchor_sequences" in table.column_names
            else None,
            codecs=codecs,
            codecs_N=np.array([codecs.index(name) for name in table.column("codec").to_pylist()])
            if "codec" in table.column_names
            else None,
        )
