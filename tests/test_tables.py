"""Tables as text."""

import csv
import io

from situs.tables import csv_text, markdown_table, text_table

ROWS = [["site", "n", "share"], ["thalamus", 7, ".5"], ["pons", 12, ""]]


def test_columns_line_up_and_rules_stand_where_asked():
    lines = text_table(ROWS, rules=(1, 3), left=(0, 2)).splitlines()
    assert lines == [
        "site       n  share",
        "-------------------",
        "thalamus   7  .5",
        "pons      12",
        "-------------------",
    ]


def test_a_bar_in_a_cell_does_not_end_it():
    assert markdown_table(["a"], [["x|y"]]).splitlines()[-1] == "| x\\|y |"


def test_csv_is_read_back():
    cells = [["a", "b"], ["1,2", 'a "b"'], ["two\nlines", ""]]
    text = csv_text(cells[0], cells[1:])
    assert list(csv.reader(io.StringIO(text, newline=""))) == cells
    assert "\r" not in text
