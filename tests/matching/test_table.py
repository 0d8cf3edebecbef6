import math

import pytest

from dpmed.errors import InputError
from dpmed.matching.table import (
    MatchRow,
    UnrelatedRow,
    read_matches,
    read_unrelated,
    write_matches,
    write_unrelated,
)

ROW = MatchRow(
    batch=0,
    index=3,
    original="originals/0/3.png",
    nonzero_ratio=0.5,
    level="eps=1e+06",
    epsilon=1e6,
    metric="ssim",
    distance=0.25,
    nearest=2,
    reconstruction="eps=1e+06/0/2.png",
    note="window 7",
)
UNMATCHED = MatchRow(
    **{**vars(ROW), "epsilon": math.inf, "distance": None, "nearest": None, "reconstruction": None, "note": ""}
)
CONTRACT = "batch,index,original,nonzero_ratio,level,epsilon,metric,distance,nearest,reconstruction"


def test_the_table_survives_the_disk_with_the_contracts_columns(tmp_path):
    write_matches(tmp_path / "m.csv", [ROW, UNMATCHED])
    assert read_matches(tmp_path / "m.csv") == [ROW, UNMATCHED]
    assert (tmp_path / "m.csv").read_text().splitlines()[0] == CONTRACT + ",note"


def test_the_table_of_unrelated_images_survives_the_disk_and_may_be_absent(tmp_path):
    row = UnrelatedRow(batch=1, index=2, metric="mse", distance=0.5, nearest=0)
    write_unrelated(tmp_path / "u.csv", [row])
    assert read_unrelated(tmp_path / "u.csv") == [row]
    assert read_unrelated(tmp_path / "none.csv") == []


LINE = "0,3,o,0.5,eps=1e+06,1e6,ssim,0.25,2,r"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the columns batch, index"),
        (CONTRACT.replace("distance,", "") + "\n", "lacks the column distance"),
        (f"{CONTRACT}\n{LINE},9\n", "line 2: has more or fewer"),
        (f"{CONTRACT}\n{LINE[:-2]}\n", "line 2: has more or fewer"),
        (f"{CONTRACT}\n{LINE.replace('0.25', 'x')}\n", "line 2: distance must be a number"),
        (f"{CONTRACT}\n{LINE.replace('0.25', 'nan')}\n", "distance must be a number"),
        (f"{CONTRACT}\n{LINE.replace('0.25', 'inf')}\n", "distance must be a number"),
        (f"{CONTRACT}\n-{LINE}\n", "batch must be a whole number"),
        (f"{CONTRACT}\n{LINE.replace(',3,', ',9999999999,')}\n", "index must be a whole number"),
    ],
)
def test_a_table_with_a_fault_is_refused_with_line_and_column(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_matches(tmp_path / "m.csv")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'a,"b\nc'])
def test_what_is_no_csv_is_refused(tmp_path, content):
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(InputError):
        read_matches(tmp_path / "m.csv")
