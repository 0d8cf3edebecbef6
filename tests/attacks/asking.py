"""Small attacks on the quickstart, as `dpmed reconstruct` would ask for them."""

from dpmed.attacks.base import Target
from dpmed.attacks.table import read_settings
from dpmed.attacks.target import target_plan
from dpmed.config.load import load_config
from dpmed.progress import Silent
from dpmed.workflows.attack.levels import make_level
from dpmed.workflows.attack.run import prepare, run
from dpmed.workflows.attack.settings import ReconstructSettings

SMALL = ("data.limit=300", "training.batch_size=24", "training.epochs=4")


def asked(attack="auto", name="quickstart", overrides=SMALL, *, epsilons=(None,), **given):
    """Settings for `attacked`; what is not a setting of the job is one of the attack."""
    job = {key: given.pop(key) for key in ("accountant", "steps", "weights") if key in given}
    return ReconstructSettings(
        config=load_config(name, list(overrides)).config,
        config_name=name,
        attack=read_settings(attack, given),
        epsilons=epsilons,
        **job,
    )


def attacked(settings, folder):
    """What `dpmed reconstruct` does with such settings."""
    return run(prepare(settings, Silent()), folder, Silent())


def aim(settings):
    """What the attack of such settings is prepared against."""
    plan = target_plan(settings.config, Silent(), weights=settings.weights)
    steps = 1 if settings.steps == "one" else plan.steps
    levels = tuple(make_level(plan, one, steps=steps, accountant=settings.accountant) for one in settings.epsilons)
    return Target(plan=plan, levels=levels, steps=steps)
