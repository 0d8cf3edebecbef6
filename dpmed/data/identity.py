"""The identity of a record, which keys augmentation and drop-out, and of an image, by which a cohort file counts.

Both are independent of all other records.

Differential privacy compares a data set with the same data set without one record. If the randomness of a record
depended on its position, removing one record would change the augmented views of all others, and no clipping would
bound that. So each record's randomness is a function of the run's secret (or seed), the step and the record's own
identity: the names of its samples, or their content if a data set has no names for them.

An image is the same image whatever is learnt from it, so its names contain neither target nor mask. Several names are
given where another config could name it otherwise, such as one that uses only one of its files.
"""

import hashlib
from collections.abc import Sequence
from itertools import islice

import numpy as np
from jaxtyping import Int, Shaped, UInt32

from dpmed.config.data import DataTable
from dpmed.data.base import Dataset, ImageNames, Sample
from dpmed.data.contents import content_names
from dpmed.progress import Progress

KEY_WORDS = 2
_DIGEST_BYTES = 16
# Keys that say how samples are decoded, scaled, cached or split, not which samples there are.
_NOT_WHICH = frozenset(
    "train_size test_fraction validation_fraction split_by split_seed max_samples_per_unit cache cache_folder mean std "
    "normalisation size shape channels spacing_mm window depth columns download target_mean target_std".split()
)


def names_of(dataset: Dataset) -> Sequence[str] | None:
    """The samples' own names (`dataset.names`, such as paths below a root); None if they have none.

    A name stays the same when other samples are added or removed.
    """
    found: Sequence[str] | None = getattr(dataset, "names", None)
    return found


def seeded_secret(seed: int) -> bytes:
    """The secret derived from `seed`, for reproducible runs."""
    return hashlib.sha256(b"dpmed augmentation\0" + str(seed).encode()).digest()


def record_keys(
    dataset: Dataset, members: Sequence[Int[np.ndarray, " _"]], *, secret: bytes
) -> UInt32[np.ndarray, "record 2"]:
    """A 64-bit key for every record, from which all of its randomness is derived.

    Guarantee: a record's key depends on the secret and the record's own samples only. Adding or removing other records,
    or changing their order, changes no key. Records with equal content may share a key; this weakens nothing, since
    each record's gradient is still a function of the record alone.

    Args:
        dataset: where samples come from.
        members: for each record, the numbers of its samples.
        secret: 1 to 64 bytes; in a release run, drawn from the operating system and never stored.
    """
    numbers = np.concatenate([np.zeros(0, np.int64), *members])
    identities = iter(sample_identities(dataset, numbers.tolist()))
    keys = np.empty((len(members), KEY_WORDS), "<u4")
    for record, samples in enumerate(members):
        digest = hashlib.blake2b(key=secret, digest_size=4 * KEY_WORDS, person=b"dpmed record")
        for identity in sorted(islice(identities, len(samples))):
            digest.update(identity)
        keys[record] = np.frombuffer(digest.digest(), "<u4")
    return keys.astype(np.uint32, copy=False)


def sample_identities(dataset: Dataset, numbers: Sequence[int]) -> list[bytes]:
    """The identity of each of these samples: a digest of its name, or of its content if it has no name."""
    names = names_of(dataset)
    if names is None:
        return [_identity_by_content(dataset[number]) for number in numbers]
    named = (names[number].encode("utf-8", "surrogatepass") for number in numbers)
    return [hashlib.blake2b(name, digest_size=_DIGEST_BYTES).digest() for name in named]


def image_names(dataset: Dataset, numbers: Sequence[int], progress: Progress) -> list[ImageNames]:
    """Names of the image of each of these samples, all of which mean this image; targets and masks are no part of them.

    They are those that the data set gives (`dataset.image_names`), else the sample's own name. A digest of the image's
    content is one of them, so that a copy under another name is the same image: of its files, or of its numbers where
    samples have no names of their own. An image from your own code that has a name is not read.

    Args:
        dataset: where the images come from.
        numbers: the samples.
        progress: shows how many images have been read.

    Raises:
        InputError: a file cannot be read.
    """
    own = names_of(dataset)
    given, files = (getattr(dataset, name, None) for name in ("image_names", "image_files"))
    contents = [] if files is None else content_names([files[number] for number in numbers], progress)
    found: list[ImageNames] = []
    for place, number in enumerate(numbers):
        names = () if given is None else tuple(given[number])
        if own is None:
            names = (*names, _digest_of(dataset[number].input).hex())
        elif not names:
            names = (own[number],)
        found.append((*names, contents[place]) if contents else names)
    return found


def _identity_by_content(sample: Sample) -> bytes:
    return _digest_of(sample.input, sample.target)


def _digest_of(*parts: Shaped[np.ndarray, "..."]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.digest()


def name_same_samples(one: DataTable, other: DataTable) -> bool:
    """Whether two `[data]` tables refer to the same samples in the same order, however these are decoded and split."""
    left, right = (
        {key: value for key, value in table.model_dump().items() if key not in _NOT_WHICH} for table in (one, other)
    )
    return left == right
