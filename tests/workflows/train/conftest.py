"""A plan that is made in an instant."""

import pytest

from dpmed.config.load import load_config
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent

SETTINGS = [
    "data.limit=120", "training.batch_size=16", "training.epochs=2", "model.width=[4]", "training.microbatch=8",
]  # fmt: skip


@pytest.fixture(scope="module")
def plan():
    return make_plan(load_config("quickstart", SETTINGS).config, Silent())
