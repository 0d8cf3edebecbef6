from dataclasses import asdict, replace

import pytest

from dpmed.attacks.prior_aware.results_table import COLUMNS, AttackResult, read_results, write_results
from dpmed.errors import InputError

RESULT = AttackResult(
    adversary="worst-case",
    epsilon=8.0,
    epsilon_pld=7.99,
    epsilon_rdp=8.9,
    noise_multiplier=3.03,
    sampling_rate=0.4,
    steps=150,
    prior=0.01,
    trials=1000,
    successes=97,
    success_rate=0.097,
    ci_low=0.074,
    ci_high=0.124,
    bound_upper=0.241,
    bound_lower=0.2408,
    gap=0.144,
    ideal_rate=0.2,
    ideal_low=0.17,
    ideal_high=0.24,
)
EARLIER = replace(RESULT, ideal_rate=None, ideal_low=None, ideal_high=None)


def test_what_is_written_is_read(tmp_path):
    results = (RESULT, replace(EARLIER, adversary="relaxed"))
    write_results(tmp_path / "x.csv", results)
    assert read_results(tmp_path / "x.csv") == results
    assert (tmp_path / "x.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_column_more_or_without_the_ideal_rate_is_read_too(tmp_path):
    content = asdict(RESULT) | {"comment": "mine"}
    for name in ("ideal_rate", "ideal_low", "ideal_high"):
        del content[name]
    (tmp_path / "x.csv").write_text(",".join(content) + "\n" + ",".join(map(str, content.values())) + "\n")
    assert read_results(tmp_path / "x.csv") == (EARLIER,)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("adversary", "strong", "line 2: adversary: must be 'worst-case' or 'relaxed'"),
        ("epsilon", "nan", "epsilon: must be a finite number"),
        ("epsilon_rdp", "inf", "epsilon_rdp: must be a finite number"),
        ("noise_multiplier", "0", "noise_multiplier: must be above 0"),
        ("steps", "1.5", "steps: must be a whole number"),
        ("trials", "many", "trials: must be a whole number"),
        ("success_rate", "1.5", "success_rate: must be at most 1"),
        ("success_rate", "0.5", "outside its interval"),
        ("ci_low", "", "ci_low: is missing"),
        ("prior", "1", "prior: must be below 1"),
    ],
)
def test_a_value_that_is_wrong_is_named(tmp_path, column, value, message):
    content = {name: str(one) for name, one in asdict(RESULT).items()} | {column: value}
    (tmp_path / "x.csv").write_text(",".join(content) + "\n" + ",".join(content.values()) + "\n")
    with pytest.raises(InputError) as refused:
        read_results(tmp_path / "x.csv")
    assert message in str(refused.value) and str(refused.value).startswith(str(tmp_path / "x.csv"))


def test_rows_of_different_trainings_are_refused(tmp_path):
    write_results(tmp_path / "x.csv", (RESULT, replace(RESULT, steps=151)))
    with pytest.raises(InputError, match="different values of steps"):
        read_results(tmp_path / "x.csv")


@pytest.mark.parametrize(
    "content", [b"", b"adversary,epsilon\n", b"\xff\xfe\x00", b"a" * 200_000, b" " * ((1 << 24) + 1)]
)
def test_what_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    for name in ("x.csv", "none.csv"):
        with pytest.raises(InputError, match=name):
            read_results(tmp_path / name)
