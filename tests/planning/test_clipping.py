"""Noise that arithmetic swallows is refused where the run may be released."""

import pytest

from dpmed.config.privacy import PrivacyConfig
from dpmed.dpsgd.noise import smallest_noise_multiplier
from dpmed.errors import InputError
from dpmed.planning.clipping import noise_notes, require_noise
from dpmed.privacy.budget import Budget

SIZE = 8012


def budget(noise_multiplier):
    return Budget(
        noise_multiplier=noise_multiplier,
        sampling_rate=0.25,
        steps=300,
        delta=1e-6,
        clipping_norm=1.0,
        train_size=SIZE,
        expected_batch_size=2003,
        accountant="rdp",
        epsilon_pld=1e20,
        epsilon_rdp=1e20,
    )


def privacy(source):
    return PrivacyConfig(epsilon=1e20, delta=1e-6, clipping_norm=1.0, noise_source=source)


def test_a_release_run_without_visible_noise_is_refused_and_a_seeded_one_says_so():
    least = smallest_noise_multiplier(SIZE)
    below, above = budget(0.99 * least), budget(1.01 * least)
    with pytest.raises(InputError, match=r"privacy.epsilon.*seeded"):
        require_noise(privacy("os-entropy"), below)
    require_noise(privacy("os-entropy"), above)
    require_noise(privacy("seeded"), below)
    assert noise_notes(above) == ()
    assert "simulates training without noise" in " ".join(noise_notes(below))
