"""Shared by the tests of advice: a small private config, gathered."""

from dpmed.config.load import load_config
from dpmed.planning.plan import gather
from dpmed.progress import Silent

SMALL = ["data.limit=100", "training.batch_size=20", "training.epochs=4", "model.width=[4]"]


def config_of(*settings, name="quickstart"):
    return load_config(name, [*SMALL, *settings]).config


def gathered_of(*settings, name="quickstart"):
    return gather(config_of(*settings, name=name), Silent())
