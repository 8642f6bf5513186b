"""What every reader of the user's files promises, for any bytes and any small edit of a good file.

It returns what the file says, or refuses with one `UserError`. What a file says is found here by
means of its own, from the text, so that a shifted column or a dropped row would show.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysplit.base.errors import UserError
from raysplit.base.overrides import apply_override
from raysplit.base.sealed_json import read_sealed, write_sealed
from raysplit.base.tables import read_table
from raysplit.doctor.cluster_file import check_cluster_file
from raysplit.pipeline.experiment import load_experiment
from raysplit.radio.reading import OPPORTUNITY_BITS, read_trace_file
from tuning.state_files import load_state, save_state

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Reader:
    """A reader of a file of the user's.

    Attributes:
        good: Contents of good files.
        check: Reads a file of the user's content; raises UserError where it refuses it, and
            AssertionError where it returns something else than what the file says.
        name: The file's name.
    """

    good: tuple[bytes, ...]
    check: Callable[[Path], None]
    name: str = "file"


def check_examples(reader: Reader, folder: Path, examples: int) -> int:
    """Try that many contents; return how many were tried.

    Raises:
        AssertionError: One was read wrongly.
        Exception: One raised something else than a UserError.
    """
    tried = 0
    path = folder / reader.name

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(contents(reader.good))
    def one(content: bytes) -> None:
        nonlocal tried
        tried += 1
        path.write_bytes(content)
        try:
            reader.check(path)
        except UserError as error:
            refusal = str(error)
        else:
            return
        assert 0 < len(refusal.splitlines()) <= 2, refusal

    for content in reader.good:
        path.write_bytes(content)
        reader.check(path)  # a good file is not refused
    one()
    return tried


_PIECES = st.one_of(
    st.sampled_from(
        [
            *(",", ";", "\t", "\n", "\r\n", " ", '"', "'", "-", ".", ":", "#", "{", "}", "[", "]"),
            *(
                "0",
                "1",
                "9",
                "e",
                "E",
                "1e999",
                "nan",
                "inf",
                "null",
                "true",
                "~",
                "!!python/name:x",
            ),
            *("\ufeff", "\0", "\x1c", "\u2028", "é", "٣", "&a ", "*a", "<<: ", "- ", "%", "|"),
            "9" * 5000,
        ]
    ),
    st.text(max_size=4),
    st.integers().map(str),
    st.floats().map(repr),
)


@st.composite
def contents(draw: st.DrawFn, good: tuple[bytes, ...]) -> bytes:
    """Any bytes or, mostly, one to three small edits of a good file."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    content = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        match draw(st.integers(0, 5)):
            case 0:
                del content[at : at + draw(st.integers(1, 8))]
            case 1:
                content[at:at] = draw(_PIECES).encode(errors="surrogatepass")
            case 2:
                content[at : at + 1] = draw(_PIECES).encode(errors="surrogatepass")
            case 3:
                content[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 4:  # a line twice, elsewhere
                lines = bytes(content).split(b"\n")
                line = draw(st.sampled_from(lines))
                lines.insert(draw(st.integers(0, len(lines))), line)
                content = bytearray(b"\n".join(lines))
            case _:
                del content[at:]
    return bytes(content)


def _cells(path: Path, separator: str) -> list[list[str]]:
    """The cells of a table, line by line; those of empty lines left out."""
    text = path.read_bytes().decode().removeprefix("\ufeff")
    lines = io.StringIO(text, newline="")
    rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    return [[cell.strip() for cell in row] for row in rows if any(row)]


def _number(cell: str, separator: str) -> float:
    return float(cell if separator == "," else cell.replace(",", "."))


def _check_columns(path: Path, columns: dict[str, list[float]], separator: str) -> None:
    """Compare columns that were read with the cells that stand under their names."""
    header, *rows = _cells(path, separator)
    assert all(len(row) == len(header) for row in rows), "a row has other cells than the header"
    for name, values in columns.items():
        assert header.count(name) == 1, f"{name} stands {header.count(name)} times"
        assert [_number(row[header.index(name)], separator) for row in rows] == values
        assert all(map(math.isfinite, values))


def check_plan(path: Path) -> None:
    """A plan's or trace's table of link states, CSV."""
    names = ("split_point", "noise_std")
    table = read_table(path, names, "plan.path")
    columns = dict(zip(names, table.values_RC.T.tolist(), strict=True))
    _check_columns(path, columns, ",")


def check_trace(path: Path) -> None:
    """A trace of the radio: mahimahi's, or a table."""
    trace = read_trace_file(path)
    text = path.read_bytes().decode("utf-8-sig")
    first, *_ = text.lstrip().split("\n")
    if first.strip().isdigit():
        times = [int(line) for line in text.splitlines() if line.strip()]
        assert trace.duration_s == times[-1] / 1e3
        assert times == sorted(times)
        sent_bits = float(trace.values_R.sum()) * 1e3  # Mbit/s over one ms each
        assert math.isclose(sent_bits, len(times) * OPPORTUNITY_BITS)
        return
    separator = next((mark for mark in ";\t|" if mark in first), ",")
    header, *rows = _cells(path, separator)
    assert all(len(row) == len(header) for row in rows), "a row has other cells than the header"
    columns = [[row[i] for row in rows] for i in range(len(header))]
    values = trace.values_R.tolist()
    assert any(_numbers_in(column, separator) == values for column in columns)


def _numbers_in(column: list[str], separator: str) -> list[float]:
    try:
        return [_number(cell, separator) for cell in column]
    except ValueError:  # a note
        return []


def check_experiment(path: Path) -> None:
    """An experiment's YAML."""
    experiment = load_experiment(str(path))
    written = yaml.safe_load(path.read_bytes().decode("utf-8", errors="replace"))
    resolved = yaml.safe_load(experiment.to_yaml())
    for place, number in _numbers(written):
        found: Any = resolved
        for key in place:
            found = _inside(found, key)
        assert found is None or _same(found, number), f"{place}: {number} became {found}"


def _inside(value: Any, key: Any) -> Any:
    """What stands there after resolving; None where a shorter form was written out."""
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return value[key]
    return None


def _same(found: Any, number: Any) -> bool:
    return isinstance(found, dict | list) or found == number or str(found) == str(number)


def _numbers(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        return [n for key, inner in value.items() for n in _numbers(inner, (*place, key))]
    if isinstance(value, list):
        return [n for i, inner in enumerate(value) for n in _numbers(inner, (*place, i))]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [(place, value)] if is_number else []


def check_override(path: Path) -> None:
    """The value of `--set`."""
    text = path.read_bytes().decode(errors="replace")
    values: dict[str, Any] = {}
    apply_override(values, f"a.b={text}")
    expected = yaml.safe_load(text)
    assert values["a"]["b"] == expected or expected != expected or "nan" in text.lower()


def check_cluster(path: Path) -> None:
    """A cluster file, by the doctor: rows, whatever it holds."""
    rows = check_cluster_file(path, "2.60.0")
    assert rows
    assert all(row.detail and "\n" not in row.name for row in rows)


_SEALED = {"format": 2, "files": {"a": "b"}, "curve": [[1, 2.5], [2, None]]}


def check_sealed(path: Path) -> None:
    """The JSON of checkpoints and agents: nothing but what was written is read."""
    assert read_sealed(path, "train again") == _SEALED


_STATE = {"a": {0: [1.5, None]}, "b": (1, float("inf"))}


def check_state(path: Path) -> None:
    """A checkpoint's tree; its hash is compared before, so here it only must not break anything."""
    try:
        assert isinstance(load_state(path.parent), dict)
    except ValueError as error:
        raise UserError("no state") from error


def readers(folder: Path) -> dict[str, Reader]:
    """Return every reader by name; `folder` is for what lies beside its file."""
    sealed = folder / "sealed.json"
    write_sealed(sealed, _SEALED)
    save_state(folder, _STATE)
    presets = ROOT / "raysplit/presets"
    plan = b"split_point,noise_std,note\n1,0.5,a\n2,1.25,b\n3,6,c\n"
    quoted = b'\xef\xbb\xbf"split_point", "noise_std"\r\n1, 0.5\r\n"2", "1e-3"\r\n'
    tables = (
        b"time_s,capacity_mbit_s\n0,5.5\n1,6\n2,7.25\n3,1\n",
        b"time_ms;capacity_mbit_s\n0;5,5\n100;6,25\n200;7,0\n",
        b"time\tsnr_db\n0\t-5.5\n1\t6\n2\t7\n",
    )
    return {
        "plan": Reader((plan, quoted), check_plan, "plan.csv"),
        "trace": Reader((*tables, b"1\n1\n2\n5\n9\n"), check_trace),
        "experiment": Reader(
            tuple((presets / f"{name}.yaml").read_bytes() for name in ("demo", "lte-driving")),
            check_experiment,
        ),
        "override": Reader((b"{a: [1, 2.5], b: x}", b"3", b"[0, 6]"), check_override),
        "cluster file": Reader(
            tuple((ROOT / name).read_bytes() for name in ("cluster.yaml", "cluster-onprem.yaml")),
            check_cluster,
            "cluster.yaml",
        ),
        "sealed JSON": Reader((sealed.read_bytes(),), check_sealed),
        "checkpoint state": Reader(
            ((folder / "state.json").read_bytes(),), check_state, "state.json"
        ),
    }
