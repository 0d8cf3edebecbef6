"""Textures obey the law of their process, and a simple model learns to tell the processes apart."""

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

from dpmed.data.layouts import write_phantom
from dpmed.data.phantom.shapes import generator
from dpmed.data.phantom.textures import PROCESSES, draw_texture, spectral_field
from dpmed.progress import Silent


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_spectrum_falls_as_the_exponent_says(exponent):
    power = np.mean([np.abs(np.fft.fft2(spectral_field(generator(0, n), exponent))) ** 2 for n in range(40)], axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    inner = (frequency > 0.03) & (frequency < 0.45)
    slope = np.polyfit(np.log(frequency[inner]), np.log(power[inner]), 1)[0]
    assert slope == pytest.approx(-2 * exponent, abs=0.15)  # power is amplitude squared


def test_processes_can_be_told_apart_by_simple_statistics():
    names = list(PROCESSES)
    features, labels = [], []
    for number in range(12 * len(names)):
        grey = draw_texture(generator(4, number), names[number % len(names)]).mean(axis=-1)
        power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
        radius = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
        bands = [
            np.log(power[(radius >= low) & (radius < low + 0.06)].mean() + 1) for low in np.arange(0.01, 0.48, 0.06)
        ]
        steps = np.abs(np.diff(grey))
        features.append(
            [*bands, grey.std(), steps.mean(), *np.quantile(steps, [0.5, 0.9, 0.99]), grey.max(), grey.min()]
        )
        labels.append(number % len(names))
    half = len(labels) // 2
    model = RandomForestClassifier(100, random_state=0).fit(features[:half], labels[:half])
    assert model.score(features[half:], labels[half:]) > 0.4  # 0.08 by guessing


def test_grey_ones_are_the_means_of_the_coloured(tmp_path):
    for name in ("textures", "textures-grey"):
        (tmp_path / name).mkdir()
        write_phantom(name, tmp_path / name, num=12, seed=2, progress=Silent())
    for path in (tmp_path / "textures").rglob("*.png"):
        grey = np.asarray(Image.open(tmp_path / "textures-grey" / path.relative_to(tmp_path / "textures")))
        colour = np.asarray(Image.open(path))
        assert colour.shape == (64, 64, 3) and grey.shape == (64, 64)
        np.testing.assert_allclose(grey, colour.mean(axis=-1), atol=0.5)
    assert sorted(path.name for path in (tmp_path / "textures").iterdir() if path.is_dir()) == sorted(PROCESSES)
