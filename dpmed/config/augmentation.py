"""`[augmentation]`: random changes to training samples, made on the device as part of the step."""

from typing import Annotated

from pydantic import Field

from dpmed.config.base import Table

Probability = Annotated[float, Field(ge=0, le=1)]


class AugmentationConfig(Table):
    """If left out, samples are used unchanged. Masks are transformed along with their images."""

    multiplicity: Annotated[int, Field(ge=1, le=64)] = 1
    """Augmented versions of each sample per step; their gradients are averaged before clipping (De et al., 2022), so
    they cost time but no privacy."""
    flip: tuple[Probability, ...] = ()
    """Probability of flipping along each axis of the image in turn, such as [0.2, 0.2] for up-down and left-right; of
    volumes left-right, back-front and foot-head. If left out, never."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Largest shift along each axis, in pixels; the border is filled by repeating the edge."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation in either direction, in degrees, in the plane of the first two axes."""
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest side of a random crop as a fraction of the image's; the crop is resized to the image's size. 1: no
    crop."""
    brightness: Annotated[float, Field(ge=0)] = 0.0
    """Largest constant added or subtracted, in standard deviations of the normalised image (not applied to masks)."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest relative increase or decrease of the distance from the image's mean (not applied to masks)."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of Gaussian noise on the normalised image (not applied to masks); it provides no privacy."""

    @property
    def is_active(self) -> bool:
        """Whether samples are changed at all."""
        return any(self.flip) or self.resamples or any((self.shift, self.brightness, self.contrast, self.noise))

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated."""
        return self.rotation > 0 or self.crop < 1
