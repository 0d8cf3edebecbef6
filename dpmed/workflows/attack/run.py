"""`dpmed reconstruct`, step by step: noise levels, batches of images; observe, recover, write; the summary last.

After each batch at each level the folder records what is done, so after an interruption the same call continues and
ends with the same bits.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.attacks.base import Attack, ImageAttack, Target
from dpmed.attacks.prior_aware.attack import PriorAwareAttack
from dpmed.attacks.target import target_plan
from dpmed.files import make_folder, remove_if_possible
from dpmed.progress import Progress
from dpmed.reconstructions.manifest import UNFINISHED_NAME
from dpmed.workflows.attack.images import ImageFolder, ImageSummary
from dpmed.workflows.attack.levels import make_level
from dpmed.workflows.attack.settings import ReconstructSettings
from dpmed.workflows.attack.success_rates import SuccessFolder, SuccessSummary
from dpmed.workflows.attack.unfinished import read_unfinished

Summary = ImageSummary | SuccessSummary


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackJob:
    """A checked request: nothing has been written yet, and data and model suit the attack.

    Attributes:
        settings: as asked.
        target: the training and the levels.
        attack: prepared for them.
    """

    settings: ReconstructSettings
    target: Target
    attack: Attack[Any]


def prepare(settings: ReconstructSettings, progress: Progress) -> AttackJob:
    """Do everything that precedes the first level.

    Args:
        settings: what to attack.
        progress: reports to the user.

    Raises:
        InputError: the data or the model do not suit the attack.
    """
    plan = target_plan(settings.config, progress, weights=settings.weights)
    steps = 1 if settings.steps == "one" else plan.steps
    levels = tuple(make_level(plan, value, steps=steps, accountant=settings.accountant) for value in settings.epsilons)
    target = Target(plan=plan, levels=levels, steps=steps)
    return AttackJob(settings=settings, target=target, attack=settings.attack.prepare(target, progress))


def run(job: AttackJob, folder: Path, progress: Progress) -> Summary:
    """Attack every batch at every level, and write the results.

    Args:
        job: as prepared.
        folder: a new or empty one, or that of the same attack, interrupted.
        progress: shows the progress of the attack.

    Raises:
        InputError: the folder holds another attack, or a damaged record of this one.
    """
    settings, attack, levels = job.settings, job.attack, job.target.levels
    results: ImageFolder | SuccessFolder
    if isinstance(attack, ImageAttack):
        results = ImageFolder(folder=folder, settings=settings, target=job.target, attack=attack)
    else:
        assert isinstance(attack, PriorAwareAttack)  # noqa: S101 the only other kind
        results = SuccessFolder(folder=folder, settings=settings, attack=attack)
    done = read_unfinished(make_folder(folder), settings.digest)
    if attack.obstacle is not None and not done.finished:
        progress.say(f"Planned, not run: {attack.obstacle}")
        return results.finish({})
    done.write(folder)
    work = attack.work
    total, amount = work.amount * attack.batches * len(levels), work.amount * len(done.finished)
    with progress.task(work.name, total=total, unit=work.unit, done=amount) as task:
        for batch in range(attack.batches):
            missing = [level for level in levels if not done.has(level.name, batch)]
            if missing:
                results.begin(batch)
            for level in missing:

                def advance(units: int, note: str = level.name) -> None:
                    task.advance(units, note=note)

                # The observation has no name here: it is as large as the model's update, and recovery frees it.
                found = attack.recover(attack.observe(level, batch, advance), advance)
                done.add(folder, level.name, batch, facts=results.keep(level, batch, found))
                del found
    summary = results.finish({level.name: done.of_level(level.name, attack.batches) for level in levels})
    remove_if_possible(folder / UNFINISHED_NAME)
    return summary
