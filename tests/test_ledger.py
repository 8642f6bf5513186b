"""The ledger: exactly once, durable, and never silently broken."""

import dataclasses
import os
import random
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from raysplit.base.errors import UserError
from raysplit.link.codec import Codec
from raysplit.link.state import LinkState
from raysplit.measure.ledger import Ledger
from raysplit.measure.rows import Row
from raysplit.measure.setting import Setting


def row(p=1, noise=0.5, **changes):
    base = Row(
        setting=Setting(p, LinkState(noise_std=noise), 7),
        status="done",
        log_ppl=2.5,
        stderr=0.01,
        sequences=64,
        tokens=1234,
        recomputed=60,
        seconds=0.5,
        worker="here:1",
        finished=100.0,
    )
    return dataclasses.replace(base, **changes)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "deep" / "ledger.sqlite") as opened:
        opened.add_card("card", {"a": 1})
        yield opened


def test_rows_come_back_as_they_were(ledger):
    rows = [row(1), row(2, status="invalid", log_ppl=None, stderr=None, reason="NaN at 3")]
    ledger.add("card", rows)
    with Ledger(ledger.path) as again:
        assert list(again.rows("card").values()) == rows
        assert again._connection.execute("SELECT card FROM cards").fetchall() == [('{"a": 1}',)]
        assert again.rows("other") == {}


def test_codecs_are_settings_of_their_own_and_come_back(ledger):
    codecs = ("identity", "int4-rotated/64", "top25%")
    rows = [
        row(setting=Setting(1, LinkState(noise_std=0.5), 7, Codec(name)), log_ppl=float(i))
        for i, name in enumerate(codecs)
    ]
    assert len({r.setting.key("card") for r in rows}) == 3
    ledger.add("card", rows)
    ledger.add("card", rows)
    assert list(ledger.rows("card").values()) == rows
    ledger._connection.execute("UPDATE settings SET codec = 'int8' WHERE codec = 'top25%'")
    assert list(ledger.rows("card").values()) == rows[:2]  # its checksum does not fit


# Written by the last raysplit whose ledgers knew no codecs.
FORMAT_3 = """
CREATE TABLE cards (sha256 TEXT, card TEXT, created REAL, content_sha256 TEXT,
  PRIMARY KEY (sha256));
CREATE TABLE settings (key TEXT, card TEXT, split_point INTEGER, link TEXT, seed INTEGER,
  status TEXT, log_ppl REAL, stderr REAL, sequences INTEGER, tokens INTEGER, recomputed INTEGER,
  seconds REAL, anchor_sequences INTEGER, attempts INTEGER, reason TEXT, worker TEXT, finished REAL,
  content_sha256 TEXT, PRIMARY KEY (key));
INSERT INTO settings VALUES('b60bdbe5efe2099cf43fc350804d335a4246a7bf4db9ca7e9e404aed1497978e',
  'card',3,'{"noise_std": 0.5}',7,'done',2.5,0.01,64,1234,60,0.5,0,1,NULL,'here:1',100.0,
  'ed00224ada8c864833d83a82c29684edb0fa9f2d30ba940fdff6cc9b40403986');
PRAGMA user_version = 3;
"""


def test_a_ledger_from_before_codecs_still_counts(tmp_path, capsys):
    path = tmp_path / "ledger.sqlite"
    old = sqlite3.connect(path)
    old.executescript(FORMAT_3)
    old.close()
    coded = row(setting=Setting(3, LinkState(noise_std=0.5), 7, Codec("int4/64")))
    with Ledger(path) as ledger:
        assert ledger.rows_of([row(3).setting.key("card")]) == {row(3).setting.key("card"): row(3)}
        ledger.add("card", [row(3, log_ppl=9.0), coded])
    with Ledger(path) as ledger:  # of today's format by now
        assert list(ledger.rows("card").values()) == [row(3), coded]
    assert not capsys.readouterr().err


def test_a_setting_is_taken_once(ledger):
    ledger.add("card", [row(log_ppl=1.0)])
    ledger.add("card", [row(log_ppl=2.0)])
    assert [r.log_ppl for r in ledger.rows("card").values()] == [1.0]


def test_rows_are_found_by_key(ledger):
    ledger.add("card", [row(p) for p in (1, 2, 3)])
    first, second, _ = ledger.rows("card")
    assert ledger.rows_of([second, "unknown", first]).keys() == {first, second}
    assert ledger.rows_of([]) == {}


def test_a_quarantined_row_makes_way_for_a_new_attempt_and_no_other_does(ledger):
    statuses = ("done", "quarantined", "invalid")
    ledger.add("card", [row(p, status=status) for p, status in enumerate(statuses, start=1)])
    ledger.add("card", [row(p, status="done", log_ppl=9.0) for p in (1, 2, 3)])
    rows = {r.setting.split_point: r for r in ledger.rows("card").values()}
    assert [rows[p].status for p in (1, 2, 3)] == ["done", "done", "invalid"]
    assert (rows[1].log_ppl, rows[2].log_ppl) == (2.5, 9.0)


def test_a_file_cut_anywhere_is_damaged(ledger):
    """SQLite itself fills what is missing of the last page with zeros: rows of wrong values."""
    ledger.add("card", [row(p, noise=n / 100) for p in range(1, 9) for n in range(5)])
    ledger.close()
    content = ledger.path.read_bytes()
    for kept in [*range(len(content) - 60, len(content)), len(content) - 4096, 4096, 99, 1]:
        ledger.path.write_bytes(content[:kept])
        with pytest.raises(UserError, match="damaged"):
            Ledger(ledger.path)
    ledger.path.write_bytes(content)
    with Ledger(ledger.path) as whole:
        assert len(whole.rows("card")) == 40


_OPEN = "import sys; from pathlib import Path; from raysplit.measure.ledger import Ledger\n" + (
    "for path in sys.argv[1:]: Ledger(Path(path)).close()"
)


@pytest.mark.slow
def test_several_processes_may_open_a_new_ledger_at_once(tmp_path):
    paths = [str(tmp_path / f"{i}.sqlite") for i in range(20)]
    openers = [subprocess.Popen([sys.executable, "-c", _OPEN, *paths]) for _ in range(3)]
    assert [opener.wait() for opener in openers] == [0, 0, 0]


def test_the_clean_pass_is_kept(ledger):
    assert ledger.clean_reference("card") is None
    ledger.add_clean_reference("card", (1, 5), b"\x00bytes")
    assert ledger.clean_reference("card") == b"\x00bytes"


def test_blocks_of_the_clean_pass_are_kept_until_the_whole_of_it_is(ledger):
    for block in (0, 2):
        ledger.add_clean_block("card", (1, 5), block, b"block %d" % block)
    ledger.add_clean_block("card", (1, 5), 2, b"another")  # one that is there stays
    ledger.add_clean_block("card", (2, 5), 0, b"of another range")
    assert ledger.clean_blocks("card", (1, 5)) == {0: b"block 0", 2: b"block 2"}
    assert ledger.clean_blocks("other", (1, 5)) == {}
    ledger.add_clean_reference("card", (1, 5), b"whole")
    assert ledger.clean_blocks("card", (1, 5)) == {}
    assert ledger.clean_blocks("card", (2, 5)) == {0: b"of another range"}


def test_a_changed_block_of_the_clean_pass_is_named_and_run_anew(ledger, capsys):
    for block in (0, 1):
        ledger.add_clean_block("card", (1, 5), block, b"block")
    ledger._connection.execute("UPDATE clean_blocks SET content = 'blocl' WHERE block = 1")
    assert ledger.clean_blocks("card", (1, 5)) == {0: b"block"}
    assert "clean_blocks card" in capsys.readouterr().err
    ledger.add_clean_block("card", (1, 5), 1, b"block")
    assert ledger.clean_blocks("card", (1, 5)) == {0: b"block", 1: b"block"}


@pytest.mark.parametrize("damage", ["truncate", "overwrite"])
def test_a_damaged_file_is_named_and_left_alone(ledger, damage):
    ledger.add("card", [row(p, noise=n / 100) for p in range(1, 9) for n in range(50)])
    ledger.close()
    content = ledger.path.read_bytes()
    middle = len(content) // 2
    broken = content[:middle] if damage == "truncate" else b"not a database" + content[14:]
    ledger.path.write_bytes(broken)
    with pytest.raises(UserError, match=r"ledger\.sqlite is damaged"):
        Ledger(ledger.path)
    assert ledger.path.read_bytes() == broken


def test_damage_that_comes_while_it_is_open_is_named_by_every_reader(ledger):
    ledger.add_clean_reference("card", (1, 5), bytes(20_000))
    ledger.add("card", [row(p, noise=n / 100) for p in range(1, 9) for n in range(50)])
    ledger.close()  # moves everything from the write-ahead log into the file
    with Ledger(ledger.path) as opened:
        opened._connection.execute("PRAGMA shrink_memory")  # forgets the pages that were checked
        content = ledger.path.read_bytes()
        with ledger.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (len(content) - 4096))
        for read in (
            lambda: opened.rows("card"),
            lambda: opened.clean_reference("card"),
        ):
            with pytest.raises(UserError, match=r"ledger\.sqlite is damaged .*: move it away"):
                read()


def flip(path, offset, bit=1):
    """Change one bit of a closed ledger's file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= bit
    path.write_bytes(content)


LOG_PPL = 3.14159  # its eight bytes are found in the file


@pytest.mark.parametrize(
    "stored", [struct.pack(">d", LOG_PPL), b'{"noise_std": 0.25}', b"done", b"here:1"]
)
def test_a_changed_row_is_named_left_out_and_replaced(ledger, capsys, stored):
    """SQLite's own check passes: e^6.28 would be believed where e^3.14 was measured."""
    good = row(2, noise=0.25, log_ppl=LOG_PPL)
    ledger.add("card", [row(1), good])
    ledger.close()
    flip(ledger.path, ledger.path.read_bytes().index(stored) + len(stored) - 2)
    with Ledger(ledger.path) as again:
        key = good.setting.key("card")
        assert list(again.rows("card").values()) == [row(1)]
        assert again.rows_of([key]) == {}
        said = capsys.readouterr().err
        assert said.count("\n") == 1  # once, however often it is read
        assert f"settings {key[:12]}" in said
        assert "measured anew" in said
        again.add("card", [good])
        assert again.rows_of([key]) == {key: good}


def test_no_bit_of_the_file_changes_what_is_read(ledger):
    """Whatever bit is flipped: the file is refused, or what comes back is true."""
    rows = [row(p, noise=n / 100, log_ppl=p + n / 7) for p in range(1, 9) for n in range(5)]
    ledger.add("card", rows)
    ledger.add_clean_reference("card", (1, 5), bytes(range(200)))
    ledger.close()
    content = ledger.path.read_bytes()
    true = {r.setting.key("card"): r for r in rows}
    rng = random.Random(0)
    refused = left_out = 0
    for _ in range(150):
        ledger.path.write_bytes(content)
        flip(ledger.path, rng.randrange(len(content)), 1 << rng.randrange(8))
        try:
            with Ledger(ledger.path) as damaged:
                found = damaged.rows_of(true)
                reference = damaged.clean_reference("card")
        except UserError:
            refused += 1
            continue
        assert reference in (None, bytes(range(200)))
        assert all(true[key] == r for key, r in found.items())
        left_out += len(found) < len(rows)
    assert refused
    assert left_out


def test_a_changed_clean_pass_is_named_and_taken_anew(ledger, capsys):
    ledger.add_clean_reference("card", (1, 5), b"clean reference")
    ledger._connection.execute("UPDATE clean SET reference = ?", (b"clean referencf",))
    assert ledger.clean_reference("card") is None
    assert "clean card" in capsys.readouterr().err
    ledger.add_clean_reference("card", (1, 5), b"clean reference")
    assert ledger.clean_reference("card") == b"clean reference"


def test_a_changed_card_is_written_anew(ledger, capsys):
    ledger._connection.execute("UPDATE cards SET card = '{}'")
    ledger.add_card("card", {"a": 1})
    assert "cards card" in capsys.readouterr().err
    assert ledger._connection.execute("SELECT card FROM cards").fetchall() == [('{"a": 1}',)]


OLD_SCHEMA = """
CREATE TABLE cards (sha256 TEXT PRIMARY KEY, card TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE settings (key TEXT PRIMARY KEY, card TEXT NOT NULL, log_ppl REAL);
"""


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (OLD_SCHEMA, r"of raysplit 0\.1: its rows carry no checksum.*mv .*ledger\.sqlite "),
        ("CREATE TABLE notes (text TEXT)", "of another program"),
        ("PRAGMA user_version = 999", "newer raysplit"),
        (f"{OLD_SCHEMA}; PRAGMA user_version = 2", r"of an earlier raysplit.*which anchors"),
    ],
)
def test_a_file_of_another_format_is_refused_and_left_alone(tmp_path, script, message):
    path = tmp_path / "ledger.sqlite"
    other = sqlite3.connect(path)
    other.executescript(script)
    other.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        Ledger(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
def test_a_killed_writer_leaves_whole_rows_only(tmp_path):
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from raysplit.measure.ledger import Ledger
        from raysplit.measure.rows import Row
        from raysplit.link.state import LinkState
        from raysplit.measure.setting import Setting
        ledger = Ledger(Path(sys.argv[1]))
        ledger.add_card("card", {})
        for seed in range(10**6):
            setting = Setting(1, LinkState(), seed)
            ledger.add("card", [Row(setting=setting, status="done", log_ppl=seed)])
            print(seed, flush=True)
        """
    )
    path = tmp_path / "ledger.sqlite"
    for attempt in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
        )
        last = 0
        for line in writer.stdout:
            last = int(line)
            if last >= 40 * (attempt + 1):
                break
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with Ledger(path) as ledger:
            rows = list(ledger.rows("card").values())
        assert len(rows) > last  # what was announced is there
        assert all(r.log_ppl == r.setting.seed for r in rows)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"ledger .*file/ledger\.sqlite cannot be opened"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


def test_the_cost_page_reads_seconds_per_setting_and_efficiency(tmp_path, monkeypatch):
    """Two workers, 4 and 2 seconds of work each within 5 seconds: 8 of 10 seconds were used."""
    text = (Path(__file__).parent.parent / "docs/cluster.md").read_text()
    code = re.search(r"```python\n(import sqlite3.*?)```", text, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    with Ledger(Path("runs/short/measurements.sqlite")) as ledger:
        for p, worker, seconds, finished in [(1, "a", 3, 103), (2, "a", 1, 104), (3, "b", 4, 105)]:
            done = row(p, worker=worker, seconds=float(seconds), finished=float(finished))
            ledger.add("card", [done])
        ledger.add("card", [row(4, status="invalid", seconds=50.0, finished=200.0)])
    names = {}
    exec(code, names)
    assert names["seconds_per_setting"] == pytest.approx(8 / 3)
    assert names["efficiency"] == pytest.approx(0.8)


@pytest.mark.parametrize("name", ["full", "locked", "I/O"])
def test_an_error_is_sorted_by_its_code_whatever_the_path_is_called(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be opened or written \(.*Not a directory"):
        Ledger(tmp_path / "file" / name / "ledger.sqlite")
    folder = tmp_path / name / "ledger.sqlite"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be opened or written"):
        Ledger(folder)
