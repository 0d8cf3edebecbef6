"""Several models as one: they see the same images, and their probabilities or values are averaged."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from dpmed.errors import InputError
from dpmed.inference.answers import Answers, combine
from dpmed.inference.description import ModelDescription
from dpmed.inference.predictor import Predictor
from dpmed.inference.volumes.windows import predict_windows

_OWN = {"scale", "mean", "std"}


class Committee:
    """One or several models of one task.

    Args:
        members: the models; their normalisation may differ, but all other preprocessing of files must agree.
        flips: spatial axes along which images are also flipped.

    Raises:
        InputError: two models differ in task, classes or preprocessing, or there is no such axis.
    """

    def __init__(self, members: Sequence[Predictor], *, flips: Sequence[int] = ()) -> None:
        if not members:
            raise InputError("no model was given", where="MODEL")
        first = members[0]
        for other in members[1:]:
            _check_alike(first, other)
        axes = len(first.description.preprocessing.size)
        if any(not 0 <= axis < axes for axis in flips) or len(set(flips)) != len(flips):
            problem = f"{', '.join(map(str, flips))}: must be distinct axes of the images, 0 to {axes - 1}"
            raise InputError(problem, where="flip")
        self._members = members
        self._flips = tuple(flips)

    @property
    def members(self) -> Sequence[Predictor]:
        """The models."""
        return self._members

    @property
    def description(self) -> ModelDescription:
        """The description of the first model; the others agree in everything relevant here."""
        return self._members[0].description

    @property
    def batch_size(self) -> int:
        """Number of images processed at once."""
        return self._members[0].batch_size

    @property
    def uses_windows(self) -> bool:
        """Whether volumes are predicted in windows, as when training cropped those of one voxel size."""
        description = self.description
        return description.task == "segmentation" and description.preprocessing.spacing_mm is not None

    def ask(self, images: Shaped[np.ndarray, "sample *space channel"]) -> Answers:
        """The models' answers for a batch; every batch is padded to the same size."""
        answers = [member.mean_scale(images, flips=self._flips, full=True) for member in self._members]
        return combine(answers, task=self.description.task)

    def ask_in_windows(self, values: Shaped[np.ndarray, "x y z channel"]) -> Answers:
        """The models' answers for one volume that may be larger than their input, as a batch of one."""
        answers = [self._slide(member, values)[None] for member in self._members]
        return combine(answers, task=self.description.task)

    def _slide(
        self, member: Predictor, values: Shaped[np.ndarray, "x y z channel"]
    ) -> Float[np.ndarray, "x y z answer"]:
        return predict_windows(
            values,
            self.description.preprocessing.size,
            lambda windows: member.mean_scale(windows, flips=self._flips, full=True),
            batch_size=member.batch_size,
        )


def _check_alike(first: Predictor, other: Predictor) -> None:
    one, two = first.description, other.description
    pairs = {
        "task": (one.task, two.task),
        "classes": (one.classes, two.classes),
        "targets": ([target.name for target in one.targets], [target.name for target in two.targets]),
        "preprocessing": (one.preprocessing.model_dump(exclude=_OWN), two.preprocessing.model_dump(exclude=_OWN)),
    }
    for name, (mine, others) in pairs.items():
        if mine != others:
            raise InputError(
                f"has another {name} than {first.source}, so they cannot be averaged", where=str(other.source)
            )
