"""A data set with and without one unit, both taken the real way from files to the sum that noise is added to."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from dpmed.config.load import load_config
from dpmed.data.layouts import write_phantom
from dpmed.planning import computation as computation_room
from dpmed.planning import plan as plan_room
from dpmed.planning import secrets as secrets_room
from dpmed.progress import Silent
from dpmed.training.loop import accumulate

SECRET = bytes(range(256))
# Of 21 patients, this split by the hash of names trains on 15.
SPLIT = ["data.split_seed=2", "data.test_fraction=0.15", "data.validation_fraction=0.15"]
TRAINED = 15
THREE_IMAGES, ONE_IMAGE, TESTED = "P00004", "P00006", "P00008"
NINE = 9

AUGMENTATIONS = {
    "augmentation.flip": "[0.5, 0.5]",
    "augmentation.shift": "2",
    "augmentation.rotation": "30",
    "augmentation.crop": "0.7",
    "augmentation.brightness": "0.5",
    "augmentation.contrast": "0.5",
    "augmentation.noise": "0.3",
}
SMALL = ["model.width=[6]", "privacy.clipping_norm=0.01"]
EVERYTHING = [f"{key}={value}" for key, value in AUGMENTATIONS.items()]


def make_chests(folder):
    """Pictures of patients, one to three of each."""
    write_phantom("folder", folder, num=40, seed=1, progress=Silent())
    return folder


def with_many_images(root, folder):
    """The same, in which the patient of three images has nine, more than anyone else."""
    shutil.copytree(root, folder)
    others = [path for path in sorted(root.glob("*/*")) if patient_of(path) not in (THREE_IMAGES, "phanto")]
    own = [folder / name for name in pictures_of(root, THREE_IMAGES)]
    for number, other in enumerate(others[: NINE - len(own)], start=len(own)):
        shutil.copy(other, own[0].with_name(f"{THREE_IMAGES}_{number}{other.suffix}"))
    return folder


def patient_of(name):
    return Path(name).name[:6]


def patients_in(root):
    return sorted({patient_of(path) for path in root.glob("*/*") if path.is_file()})


def without(root, names, folder):
    """The folder as it would be without these pictures."""
    shutil.copytree(root, folder)
    for name in names:
        (folder / name).unlink()
    return folder


def pictures_of(root, patient):
    return sorted(str(path.relative_to(root)) for path in root.glob(f"*/{patient}_*"))


def start(root, settings, monkeypatch):
    """The computation on the data in `root`, as `dpmed train` builds it."""
    base = [
        f"data.root={root}", 'data.name="folder"', "data.size=[8,8]", "data.channels=1",
        'data.group_pattern="^(P[0-9]+)_"', "data.cache=false", "data.max_samples_per_unit=3", *SPLIT,
        "training.batch_size=3", "training.epochs=2", "privacy.delta=1e-3", "privacy.unit=patient",
    ]  # fmt: skip
    config = load_config("quickstart", [*base, *settings]).config
    monkeypatch.setattr(secrets_room.os, "urandom", lambda count: SECRET[:count])
    plan = plan_room.make_plan(config, Silent())
    return computation_room.build_computation(plan, secrets_room.draw_secrets(plan))


def sum_of(run, numbers, *, step):
    """The accumulated sum of one step over these records, and the sensitivity that noise is made for."""
    microbatch = run.fitting_microbatch()
    state = run.begin(microbatch).state
    # Heads begin with zeros, which would hide everything before them.
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(state.trainable))))
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), state.trainable)
    state = replace(state, trainable=moved)
    stream = run.loader(microbatch).stream([np.asarray(sorted(numbers), np.int64)])
    _, total = accumulate(run.step, state, next(stream), step)
    stream.close()
    flat = np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(total.gradients)])
    return flat, float(run.plan.clipping.sensitivity(state.clipping_norm))


@dataclass(frozen=True)
class Differences:
    """‖S(D) − S(D∖r)‖ / C with the unit drawn along with the others, and without it; and who else changed sides."""

    drawn: float
    not_drawn: float
    moved: set[str]

    @property
    def lawful(self):
        return self.drawn <= 1.0 and self.not_drawn == 0.0 and not self.moved


def differences(root, settings, drawn, removed, scratch, monkeypatch, *, step=1, remove=without):
    """What the pictures `removed` change if those other records are drawn whose bit is set in `drawn`."""
    run = start(root, settings, monkeypatch)
    other = start(remove(root, removed, scratch / "less"), settings, monkeypatch)
    parts, other_parts = (
        {(dataset.names[number], part) for part, numbers in plan.split.parts().items() for number in numbers.tolist()}
        for dataset, plan in ((one.plan.dataset, one.plan) for one in (run, other))
    )
    moved = {name for name, _ in parts ^ other_parts if name not in removed}
    names, other_names = (
        [one.plan.dataset.names[int(samples[0])] for samples in one.plan.members] for one in (run, other)
    )
    unit = [place for place, name in enumerate(names) if name in removed]
    both = [name for name in names if name in other_names and name not in removed]
    chosen = [name for place, name in enumerate(both) if drawn >> place & 1]
    smaller, sensitivity = sum_of(other, [other_names.index(name) for name in chosen], step=step)
    numbers = [names.index(name) for name in chosen]
    with_unit, same = sum_of(run, numbers + unit, step=step)
    without_unit, _ = sum_of(run, numbers, step=step)
    assert same == sensitivity
    return Differences(
        float(np.linalg.norm(with_unit - smaller) / sensitivity),
        float(np.linalg.norm(without_unit - smaller) / sensitivity),
        moved,
    )
