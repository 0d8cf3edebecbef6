import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.attacks.table import read_settings
from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.privacy.accountant import calibrate_noise
from dpmed.workflows.attack.levels import check_epsilons, choose_epsilons, parse_exponents
from tests.attacks.asking import aim, asked

PRIVATE, PLAIN = load_config("quickstart").config, load_config("quickstart_nonprivate").config
PEELING, PRIOR = read_settings("peeling", {}), read_settings("prior-aware", {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6:18:2", tuple(10.0**n for n in range(6, 19, 2))),
        ("6:9:2", (1e6, 1e8)),
        ("6:8", (1e6, 1e7, 1e8)),
        (" 7 ", (1e7,)),
        ("3,1", (1e3, 10.0)),
        ("0.903", (10**0.903,)),
        ("0:1:0.1", tuple(10 ** (n / 10) for n in range(11))),
        (None, ()),
    ],
)
def test_exponents_are_parsed_as_the_contract_says(text, expected):
    assert parse_exponents(text) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "is not FIRST:LAST:STEP") for text in ("six", "6:18:0", "18:6:2", "6:8:1:1", "", ":", "1,,2", "nan")),
        *((text, "is not FIRST:LAST:STEP") for text in ("0:1:1e-9", "0:1:1e-999999", "1:2:inf", "0:1:-1")),
        ("6,6", "contains an exponent twice"),
        ("6,6.0", "contains an exponent twice"),
        ("400", "contains an exponent outside -3 to 20"),
        ("0:1e999999:1", "contains an exponent outside -3 to 20"),
        ("-4", "contains an exponent outside -3 to 20"),
    ],
)
def test_malformed_exponents_are_refused(text, message):
    with pytest.raises(InputError, match=message) as refused:
        parse_exponents(text)
    assert refused.value.where == "exponents"


@given(st.text(alphabet="0123456789.,:eE+-naif _", max_size=12))
def test_any_text_is_parsed_or_refused(text):
    try:
        found = parse_exponents(text)
    except InputError:
        return
    assert found and all(1e-3 <= value <= 1e20 for value in found)


def test_levels_are_those_asked_for_or_the_attacks_own():
    assert choose_epsilons(PEELING, PRIVATE) == (*(10.0**n for n in range(6, 19, 2)), None)
    assert choose_epsilons(PEELING, PRIVATE, epsilons=(8.0, 1.0), exponents="6") == (8.0, 1.0, 1e6, None)
    assert choose_epsilons(PEELING, PRIVATE, epsilons=(8.0,), non_private=False) == (8.0,)
    assert choose_epsilons(PEELING, PLAIN) == (None,)
    assert choose_epsilons(PRIOR, PRIVATE, exponents="1") == (10.0,)
    assert choose_epsilons(PRIOR, PRIVATE)[0] == 1.0


@pytest.mark.parametrize("asked", [True, False])
def test_an_attack_that_needs_noise_has_no_level_without(asked):
    with pytest.raises(InputError, match="is not used by the attack prior-aware") as refused:
        choose_epsilons(PRIOR, PRIVATE, non_private=asked)
    assert refused.value.where == "non_private"


@pytest.mark.parametrize(
    ("epsilons", "message"),
    [
        ((), "no level"),
        ((0.0,), "not above 0"),
        ((-1.0,), "not above 0"),
        ((math.nan,), "not above 0"),
        ((math.inf,), "not above 0"),
        ((1e6, None, 1e6), "eps=1e\\+06 is given twice"),
        ((8.0, 8.0000001), "eps=8 is given twice"),
    ],
)
def test_levels_without_meaning_are_refused(epsilons, message):
    with pytest.raises(InputError, match=message) as refused:
        check_epsilons(epsilons)
    assert refused.value.where == "epsilons"


@pytest.mark.parametrize(("steps", "accountant"), [("all", "pld"), ("one", "rdp")])
def test_the_noise_of_a_level_is_that_of_its_epsilon(steps, accountant):
    target = aim(asked(epsilons=(8.0, None), steps=steps, accountant=accountant))
    private, plain = target.levels
    assert target.steps == (36 if steps == "all" else 1)
    expected = calibrate_noise(
        epsilon=8.0, delta=1e-5, sampling_rate=24 / 216, steps=target.steps, accountant=accountant
    )
    assert (private.name, private.epsilon, private.noise_multiplier) == ("eps=8", 8.0, expected)
    assert (private.epsilon_pld if accountant == "pld" else private.epsilon_rdp) == pytest.approx(8.0, rel=1e-4)
    assert (plain.name, plain.epsilon, plain.noise_multiplier) == ("non-private", None, 0.0)
