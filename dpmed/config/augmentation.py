"""`[augmentation]`: random changes of training samples, made on the device inside the step."""

from typing import Annotated

from pydantic import Field

from dpmed.config.base import Table

Probability = Annotated[float, Field(ge=0, le=1)]


class AugmentationConfig(Table):
    """Left out, samples are used as they are. Masks are moved along with their images."""

    multiplicity: Annotated[int, Field(ge=1, le=64)] = 1
    """Changed versions of each sample per step; their gradients are averaged before clipping (De et al., 2022), so they
    cost time but no privacy."""
    flip: tuple[Probability, ...] = ()
    """Chance of mirroring along each axis of the image in turn, as in [0.2, 0.2] for up-down and left-right; left out,
    never."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Largest shift along each axis, pixels; what enters is the edge continued."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation either way, degrees, in the plane of the first two axes."""
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest side of a random crop as a share of the image's; the crop is stretched to the image's size. 1: none."""
    brightness: Annotated[float, Field(ge=0)] = 0.0
    """Largest constant added either way, in standard deviations of the normalised image (not to masks)."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest relative change of the distance from the image's mean, either way (not of masks)."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of Gaussian noise on the normalised image (not on masks); no privacy follows from it."""

    @property
    def is_active(self) -> bool:
        """Whether any sample is changed."""
        return any(self.flip) or self.resamples or any((self.shift, self.brightness, self.contrast, self.noise))

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated."""
        return self.rotation > 0 or self.crop < 1
