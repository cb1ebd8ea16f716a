import csv
import io

from stages.sheets import csv_bytes, unguarded

NAMES = ["=cmd|'/c calc'!A1", "+d", "-1", "@SUM(A1)", "'=1", "'x", "plain", 'a "quoted", name']


def test_no_text_of_a_table_is_run_and_numbers_stay_numbers():
    written = csv_bytes(["name", "value"], [[name, -0.1] for name in NAMES]).decode()
    rows = list(csv.DictReader(io.StringIO(written)))
    assert not any(row["name"][0] in "=+-@" for row in rows)
    assert [unguarded(row["name"]) for row in rows] == NAMES
    assert {row["value"] for row in rows} == {"-0.1"}
