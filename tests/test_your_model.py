"""docs/your-model.md, run as a reader would: every file written, every command called, in order."""

import json

import pytest

from tests.reader import follow

PAGE = "docs/your-model.md"


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder of a reader who has done all that the page says, and what each command printed."""
    folder = tmp_path_factory.mktemp("reader")
    return folder, follow(PAGE, folder)


def test_a_network_and_a_loss_of_ones_own_train_and_are_named_in_the_ledger(followed):
    folder, outputs = followed
    assert len(outputs) == 2
    ledger = json.loads((folder / "run" / "privacy.json").read_text())
    text = " ".join(ledger["outside_accounting"])
    assert "mynetworks:make" in text and "mynetworks:focal" in text and "SHA-256" in text
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    low, _ = metrics["intervals"]["accuracy"]
    assert low > 0.2
