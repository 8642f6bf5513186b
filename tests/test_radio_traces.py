"""Traces: read rightly or refused with the line, and averaged without losing a bit."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysplit.base.errors import UserError
from raysplit.radio import capacity_mbit_s, load_cell, read_trace_file, rsrp_to_snr_db
from raysplit.radio.trace import Trace

CELL = load_cell("lte")


def read(tmp_path, text, name="trace.csv", **options):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_trace_file(path, **options)


def bits(steps):
    return float(steps.values_S @ steps.lengths_S) * 1e6


def test_mahimahi_lines_are_packets_of_1500_bytes(tmp_path):
    trace = read(tmp_path, "0\n1\n1\n\n3\r\n10\n", "up")
    assert trace.duration_s == pytest.approx(0.01)
    # Two opportunities in the first millisecond's end and one at 0: all in [0, 1] ms.
    assert trace.values_R.tolist() == [36, 0, 12, 0, 0, 0, 0, 0, 0, 12]
    assert trace.mean() == pytest.approx(5 * 12_000 / 0.010 / 1e6)
    steps = trace.steps(0.005)
    assert steps.values_S == pytest.approx([4 * 12_000 / 0.005 / 1e6, 12_000 / 0.005 / 1e6])


@pytest.mark.parametrize("step_s", [0.001, 0.0013, 0.02, 0.1, 0.37, 1.0, 5.0])
def test_no_bit_is_lost_whatever_the_step(tmp_path, step_s):
    times_ms = np.sort(np.random.default_rng(0).integers(0, 4321, 3000))
    trace = read(tmp_path, "\n".join(map(str, times_ms)), "up.trace")
    steps = trace.steps(step_s)
    assert bits(steps) == pytest.approx(3000 * 12_000, rel=1e-12)
    assert steps.lengths_S.sum() == pytest.approx(times_ms[-1] / 1000)
    assert steps.lengths_S[:-1] == pytest.approx(step_s)
    assert 0 < steps.lengths_S[-1] < step_s + 1e-9


def test_a_step_averages_exactly_the_opportunities_in_it(tmp_path):
    times_ms = np.sort(np.random.default_rng(1).integers(1, 2001, 500))
    steps = read(tmp_path, "\n".join(map(str, times_ms)) + "\n2000\n", "up").steps(0.25)
    counts, _ = np.histogram(np.append(times_ms, 2000) - 1, np.arange(0, 2001, 250))
    assert steps.values_S == pytest.approx(counts * 12_000 / 0.25 / 1e6)


CAPACITY = [(0.0, 1.5), (1.0, 4.0), (2.0, 0.0), (3.0, 2.5)]


@pytest.mark.parametrize(
    "text",
    [
        "time_s,capacity_mbit_s\n0,1.5\n1,4\n2,0\n3,2.5\n",
        "time_ms;capacity_mbit_s\n0;1,5\n1000;4\n2000;0\n3000;2,5\n",
        "\ufeffTime (s);Throughput (Mbps);cell\r\n0;1,5;a\r\n1;4,0;a\r\n\r\n2;0,0;b\r\n3;2,5;b\r\n",
        "mbps\tt\n1.5\t0\n4\t1\n0\t2\n2.5\t3\n",
        "timestamp,Mbit/s\n1700000000,1.5\n1700000001,4\n1700000002,0\n1700000003,2.5\n",
    ],
)
def test_tables_are_read_by_the_names_of_their_columns(tmp_path, text):
    trace = read(tmp_path, text)
    assert trace.quantity == "capacity_mbit_s"
    assert trace.edges_s.tolist() == [0, 1, 2, 3, 4]
    assert trace.values_R.tolist() == [1.5, 4, 0, 2.5]


def test_a_parquet_table_is_a_trace_too(tmp_path):
    table = pa.table({"time_s": [0.0, 0.5], "snr_db": [3.0, 5.0]})
    pq.write_table(table, tmp_path / "trace.parquet")
    trace = read_trace_file(tmp_path / "trace.parquet")
    assert (trace.quantity, trace.values_R.tolist()) == ("snr_db", [3, 5])


def test_of_several_quantities_one_is_chosen(tmp_path):
    text = "time_s,rsrp_dbm,sinr,mbps\n0,-90,10,3\n1,-95,5,2\n"
    assert read(tmp_path, text, quantity="snr_db").values_R.tolist() == [10, 5]
    assert read(tmp_path, text, quantity="rsrp_dbm").values_R.tolist() == [-90, -95]
    with pytest.raises(UserError, match=r"several columns that could be meant \(mbps, sinr, rsrp"):
        read(tmp_path, text)


def test_a_value_holds_until_the_next_row():
    trace = Trace("t", "capacity_mbit_s", np.array([0, 1, 4, 5.0]), np.array([6, 2, 10.0]))
    assert trace.steps(2.0).values_S == pytest.approx([(6 + 2) / 2, 2, 10])
    assert trace.steps(2.5).values_S == pytest.approx([(6 + 1.5 * 2) / 2.5, (1.5 * 2 + 10) / 2.5])
    assert trace.mean() == pytest.approx((6 + 3 * 2 + 10) / 5)


def test_powers_are_averaged_as_powers():
    for quantity in ("snr_db", "rsrp_dbm"):
        trace = Trace("t", quantity, np.array([0, 1, 2.0]), np.array([-10.0, -20.0]))
        assert trace.mean() == pytest.approx(10 * np.log10((0.1 + 0.01) / 2))


def test_snr_and_rsrp_become_capacity():
    edges_s, rsrp = np.array([0, 1, 2.0]), np.array([-90.0, -110.0])
    trace = Trace("t", "rsrp_dbm", edges_s, rsrp)
    snr_db = rsrp_to_snr_db(rsrp, CELL)
    assert trace.as_snr(CELL).values_R.tolist() == snr_db.tolist()
    assert trace.as_capacity(CELL).values_R.tolist() == capacity_mbit_s(snr_db, CELL).tolist()
    assert trace.as_capacity(CELL).quantity == "capacity_mbit_s"
    rates = capacity_mbit_s(np.array([-30.0, 0.0, 40.0]), CELL)
    assert rates[0] == pytest.approx(0, abs=1e-9)
    assert rates[2] == pytest.approx(14.4 * 6 * 948 / 1024)


def test_an_episode_fits_or_is_refused(tmp_path):
    trace = read(tmp_path, "time_s,mbps\n0,1\n1,2\n2,3\n")
    assert len(trace.steps(0.5, episode_steps=5).values_S) == 6
    with pytest.raises(UserError, match=r"lasts 3 s, which is 3 step.s. of 1 s; an episode of 3"):
        trace.steps(1.0, episode_steps=3)
    with pytest.raises(UserError, match="step_s = 0"):
        trace.steps(0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5\n4\n", "line 2: 4 ms is below 5 before it: sort the lines"),
        ("5\n\n6,5\n", "line 3 is '6,5': a mahimahi file has a whole number of ms"),
        ("5\n-6\n", "line 2 is '-6'"),
        ("5\nx\n", "line 2 is 'x'"),
        ("0\n0\n", "has no time above 0 ms"),
        ("5\n1700000000000\n", "line 2: 1700000000000 ms is beyond 24 hours"),
        ("", "has no column for the time"),
        ("time_s,mbps\n0,1\n2,1\n1,1\n", "line 4 is earlier than that of line 3 .*sort the rows"),
        ("time_s,mbps\n0,1\n1,1\n\n1,1\n", "line 5 repeats the time of line 3"),
        ("time_s,mbps\n0,1\n1,1\n2,1\n8,1\n", "line 5 comes 6 s after line 4, and at most 5 s"),
        ("time_s,mbps\n0,1\n1,\n", "line 3: mbps is '', which is no number"),
        ("time_s,mbps\n0,1\n1,-2\n", "line 3: capacity_mbit_s -2 .* at least 0"),
        ("time_s,rsrp\n0,-90\n1,90\n", "line 3: rsrp_dbm 90 .* below 0 dBm"),
        ("time_s;mbps\n0;1,5\n1;2.5\n", "line 3: mbps is '2.5', and cells before it"),
        ("time_s,mbps\n0,1,5\n", "line 2 has 3 cell.s. and the header 2: a decimal comma"),
        ("time_s,mbps\n0,1\n", "has 1 row.s.: a trace needs at least two"),
        ("time_s,kbps\n0,1\n", "has no column for capacity_mbit_s or snr_db or rsrp_dbm"),
        ("clock,mbps\n0,1\n", "has no column for the time: name one column time_s"),
        ("time_s,t,mbps\n0,0,1\n", r"has several times \(time_s, t\)"),
        ("time_s,mbps,mbps\n0,0,1\n", "could be meant"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"trace {tmp_path / 'trace.csv'}")
    assert "\n" not in str(caught.value)


def test_gaps_are_allowed_where_the_user_says_so(tmp_path):
    text = "time_s,mbps\n0,1\n1,1\n2,1\n8,1\n"
    assert read(tmp_path, text, max_gap_s=6).duration_s == 9
    with pytest.raises(UserError, match="max_gap_s = -1"):
        read(tmp_path, text, max_gap_s=-1)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"missing.up cannot be read \(No such file"):
        read_trace_file(tmp_path / "missing.up")
    with pytest.raises(UserError, match="cannot be read"):
        read_trace_file(tmp_path)
    (tmp_path / "latin").write_bytes("time_s;Qualität;mbps\n".encode("latin-1"))
    with pytest.raises(UserError, match="save it as CSV, UTF-8"):
        read_trace_file(tmp_path / "latin")
    with pytest.raises(UserError, match=r"unknown quantity 'snr' .* did you mean 'snr_db'"):
        read(tmp_path, "time_s,snr\n0,1\n1,1\n", quantity="snr")


def test_an_rsrp_is_needed_for_an_snr():
    with pytest.raises(UserError, match="holds snr_db and not rsrp_dbm"):
        Trace("t", "snr_db", np.array([0, 1.0]), np.array([1.0])).as_snr(CELL)
