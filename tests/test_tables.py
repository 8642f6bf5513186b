"""The user's tables: read rightly, or refused with the line and what was seen there."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysplit.base.errors import UserError
from raysplit.base.tables import read_table


def read(tmp_path, text, *names):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return read_table(path, names, "trace")


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,0.5\n2,1e-3\n",
        "b,x,a\n0.5,text,1\n1e-3,,2\n",  # in any order, beside other columns
        "\ufeffa,b\n1,0.5\n2,1e-3\n",  # a mark of spreadsheets
        "a, b\n1, 0.5\n 2 , 1e-3\n",  # blanks after commas
        '"a","b"\n"1","0.5"\n"2", "1e-3"\n',  # quotes around numbers
        "a,b\r\n1,0.5\r\n\r\n2,1e-3\r\n,\r\n",  # lines of Windows, and empty ones
        ",a,b\n0,1,0.5\n1,2,1e-3\n",  # the index that pandas writes
        'a,b,note\n1,0.5,"x, y"\n2,1e-3,"two\nlines"\n',
    ],
)
def test_numbers_are_read_by_their_columns_name(tmp_path, text):
    assert read(tmp_path, text, "a", "b").values_RC.tolist() == [[1, 0.5], [2, 1e-3]]
    assert read(tmp_path, text, "b").values_RC.tolist() == [[0.5], [1e-3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n0,5,1\n", r"line 2 has 3 cell\(s\) and the header 2: a decimal comma"),
        ("a,b\n3,1.5\n3,1,5\n", r"line 3 has 3 cell\(s\) and the header 2: a decimal comma"),
        ("a,b\n3,1.5\n3\n", r"line 3 has 1 cell\(s\) and the header 2: give every column"),
        ("a,b\n3,x,1.5\n", "give every column its cell"),
        ("a,b,\n1,0,5\n", "line 2 has a value in a column without a name.* decimals have a point"),
        ('a,b\n3,"1,5"\n', "line 2: b is '1,5', which is no number; write decimals with a point"),
        ("a;b\n3;1,5\n", "has semicolons between its cells: separate them by commas"),
        ("a\tb\n3\t1.5\n", "has tabs between its cells"),
        ("a,b,b\n1,2,3\n", "has the column b twice"),
        ("a,c\n1,2\n", r"lacks the column\(s\) b: it needs a, b and has a, c"),
        ("", r"lacks the column\(s\) a, b: it needs a, b and has none"),
        ("a,b\n1,\n", "line 2: b is '', which is no number"),
        ("a,b\n1,inf\n", "line 2: b is inf, which is not finite"),
        ("a,b\n\n1,nan\n", "line 3: b is nan, which is not finite"),
        ('a,b\n1,"0.5"x\n', "is no CSV text in UTF-8"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, text, "a", "b")
    assert str(caught.value).startswith(f"trace {tmp_path / 'table.csv'}")


def test_a_column_of_decimal_commas_is_not_cut(tmp_path):
    with pytest.raises(UserError, match=r"line 2 has 2 cell.* header 1: a decimal comma"):
        read(tmp_path, "noise_std\n0,5\n1,0\n", "noise_std")


def test_files_that_are_no_text_or_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv cannot be read \(No such file"):
        read_table(tmp_path / "nowhere.csv", ["a"], "trace")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory"):
        read_table(tmp_path, ["a"], "trace")
    (tmp_path / "x.csv").write_bytes("a\n1\n§".encode("latin-1"))
    with pytest.raises(UserError, match="is no CSV text in UTF-8"):
        read_table(tmp_path / "x.csv", ["a"], "trace")


def test_parquet_follows_the_same_rules(tmp_path):
    path = tmp_path / "table.parquet"

    def write(names, *columns):
        pq.write_table(pa.table([pa.array(c) for c in columns], names=names), path)

    write(["b", "a", "note"], [0.5, 2.0], [1, 2], ["x", "y"])
    table = read_table(path, ["a", "b"], "plan")
    np.testing.assert_array_equal(table.values_RC, [[1, 0.5], [2, 2.0]])
    assert table.places == ("row 1", "row 2")
    with pytest.raises(UserError, match=r"lacks the column\(s\) c"):
        read_table(path, ["c"], "plan")
    with pytest.raises(UserError, match="column note holds string and not numbers"):
        read_table(path, ["note"], "plan")
    write(["a", "a"], [1.0], [2.0])
    with pytest.raises(UserError, match="has the column a twice"):
        read_table(path, ["a"], "plan")
    write(["a"], [1.0, None])
    with pytest.raises(UserError, match="row 2: a is not finite, or empty"):
        read_table(path, ["a"], "plan")
    write(["a"], [True])
    with pytest.raises(UserError, match="holds bool and not numbers"):
        read_table(path, ["a"], "plan")
    path.write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"table\.parquet cannot be read as Parquet"):
        read_table(path, ["a"], "plan")


SAME = [[0.0, 1.5], [1.0, 2000.25]]


@pytest.mark.parametrize(
    "text",
    [
        "a;b\n0;1,5\n1;2000,25\n",
        "a;b\n0;1.5\n1;2000.25\n",
        "a\tb\n0\t1,5\n1\t2000,25\n",
        "a|b\n0,0|1,5\n1,0|2000,25\n",
        "a,b\n0,1.5\n1,2000.25\n",
        "\ufeffa;b;c\n0;1,5;x\n1;2,00025e3;y, z\n",
    ],
)
def test_any_separator_where_it_is_asked_for(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    assert read_table(path, ("a", "b"), "trace", any_separator=True).values_RC.tolist() == SAME


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a;b\n0;1,5\n1;2.5\n", "line 3: b is '2.5', and cells before it have decimals with ','"),
        ("a;b\n0;1.5\n1;2,5\n", "line 3: b is '2,5', and cells before it have decimals with '.'"),
        ("a;b\n0;1.000,5\n", "line 2: b is '1.000,5', which is no number"),
        ("a,b\n0,1,5\n", r"line 2 has 3 cell\(s\) and the header 2: a decimal comma"),
        ('a,b\n0,"1,5"\n', "which is no number; write decimals with a point"),
        ("a b\n0 1\n", r"lacks the column\(s\) a, b"),
    ],
)
def test_a_mixture_of_marks_is_refused(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_table(path, ("a", "b"), "trace", any_separator=True)


def test_columns_can_be_chosen_from_the_header(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("x,b,a\n0,1,2\n")
    table = read_table(path, lambda header: sorted(header)[:2], "trace")
    assert table.values_RC.tolist() == [[2, 1]]


def test_control_characters_of_a_header_are_shown_on_one_line(tmp_path):
    path = tmp_path / "plan.csv"
    path.write_bytes(b'a\x1e\x1b[2J,"b\nc"\n1,2\n')
    with pytest.raises(UserError) as refused:
        read_table(path, ("split_point",), "plan.path")
    assert str(refused.value).splitlines() == [str(refused.value)]
    assert r"has a\x1e\x1b[2J, b c" in str(refused.value)
