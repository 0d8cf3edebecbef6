import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant

from dpmed.errors import InputError
from dpmed.privacy.calibrated import assess_noise, calibrate

SETTING = {"delta": 1e-5, "sampling_rate": 0.05, "steps": 200}


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize("target", [0.5, 8.0, 1e6])
def test_the_noise_spends_the_target_by_the_accountant_that_it_refers_to(target, accountant):
    found = calibrate(target, accountant=accountant, **SETTING)
    assert target * (1 - 1e-4) <= found.epsilon(accountant) <= target
    assert found.epsilon_pld <= found.epsilon_rdp
    assert found == assess_noise(found.noise_multiplier, **SETTING)


def test_the_renyi_budget_is_that_of_dp_accounting():
    accountant = RdpAccountant()
    accountant.compose(dp_event.PoissonSampledDpEvent(0.05, dp_event.GaussianDpEvent(1.3)), 200)
    assert assess_noise(1.3, **SETTING).epsilon_rdp == pytest.approx(accountant.get_epsilon(1e-5), rel=2e-2)


def test_a_record_that_hardly_ever_takes_part_leaves_nothing_to_calibrate():
    with pytest.raises(InputError, match="nothing to calibrate"):
        calibrate(8.0, delta=0.1, sampling_rate=1e-3, steps=10)
