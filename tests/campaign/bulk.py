"""Large inputs for the campaign's loads; called in a process of its own, whose memory is not that of a command."""

import gzip
import os
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.campaign.scenarios import NETWORK

SIDES = (512, 512)
PATIENTS = 1_000
_PER_FOLDER = 1_000
_CLASSES = ("benign", "malignant", "unclear")
_RUN = (
    """
[data]
{data}
size = [8, 8]
channels = 1
"""
    + NETWORK
    + """[training]
epochs = 1
batch_size = 64
[evaluation]
bootstrap = 20
[privacy]
epsilon = 8.0
delta = 1e-7
clipping_norm = 0.5
{privacy}
"""
)
_TABLE = """
name = "table"
root = "data"
table = "table.csv"
image = "image"
labels = "class"
patient = "patient"
split_by = "keyed-hash"
cache = false
"""


def write_table(folder: Path, rows: int) -> None:
    """A table of so many rows, two to a patient: names of one small picture that is linked so often.

    The reader refuses a file that is named twice; to it, names of one file are files. Links to one file take no room,
    but a file system such as ext4 has 65,000 of them for a file at most: every 50,000 rows have a picture of their own.
    """
    lines = ["image,patient,class"]
    for row in range(rows):
        name = f"images/{row // _PER_FOLDER:04d}/{row:07d}.png"
        path = folder / "data" / name
        if row % _PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        if row % 50_000 == 0:
            _picture(row).save(path)
            linked = path
        else:
            os.link(linked, path)
        lines.append(f"{name},P{row // 2:07d},{_CLASSES[row % len(_CLASSES)]}")
    (folder / "data" / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "run.toml").write_text(_RUN.format(data=_TABLE, privacy='unit = "patient"'))


def write_folder(folder: Path, files: int) -> None:
    """So many small pictures, each a file of its own, in a folder for each class."""
    for number in range(files):
        path = folder / "data" / _CLASSES[number % len(_CLASSES)] / f"{number:07d}.png"
        if number < len(_CLASSES):
            path.parent.mkdir(parents=True)
        _picture(number).save(path)
    (folder / "run.toml").write_text(_RUN.format(data='name = "folder"\nroot = "data"', privacy=""))


def write_cohort(folder: Path, runs: int, *, kinds: int) -> None:
    """A cohort file with so many runs, each on four fifths of 1,000 patients, drawn anew, and a run to be entered.

    Args:
        folder: where to.
        runs: entered.
        kinds: how many different σ they have, by turns.
    """
    from dpmed.privacy.cohort.file import Cohort
    from dpmed.privacy.cohort.records import Entry
    from dpmed.privacy.mechanism import SampledGaussian

    write_table(folder, 2 * PATIENTS)
    config = (folder / "run.toml").read_text().replace("epsilon = 8.0", "epsilon = 0.5")
    (folder / "run.toml").write_text(config + 'cohort = "cohort.db"\n')
    generator = np.random.default_rng(0)
    entries = []
    for number in range(runs):
        some = np.flatnonzero(generator.random(PATIENTS) < 0.8)
        noise = 4 + (number % kinds) / kinds
        entry = Entry(token=f"{number:032x}", folder=f"runs/{number}", config_sha256="0" * 64, data="made",
                      mechanism=SampledGaussian(noise_multiplier=noise, sampling_rate=0.05, steps=100),
                      units=[(f"P{patient:07d}",) for patient in some.tolist()])  # fmt: skip
        entries.append(entry)
    with Cohort(folder / "cohort.db", create=("patient", 1e-7)) as cohort:
        cohort.enter(entries)


def write_series(folder: Path, slices: int) -> None:
    """A series of so many DICOM files of 512 × 512 pixels."""
    from tests import written_dicom

    written_dicom.write_series(folder / "volume", [_slice(number) for number in range(slices)])


def write_nifti(folder: Path, slices: int, *, name: str = "volume.nii") -> None:
    """A NIfTI-1 file of so many slices of 512 × 512 voxels, slice by slice."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *SIDES, slices, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)  # int16
    struct.pack_into("<8f", header, 76, 1, 0.7, 0.8, 2.5, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    struct.pack_into("<h", header, 254, 1)  # the affine stands in the next twelve numbers
    struct.pack_into("<12f", header, 280, 0.7, 0, 0, 0, 0, 0.8, 0, 0, 0, 0, 2.5, 0)
    struct.pack_into("<4s", header, 344, b"n+1\0")
    path = folder / name
    with gzip.open(path, "wb", 1) if name.endswith(".gz") else path.open("wb") as file:
        file.write(bytes(header))
        for number in range(slices):
            file.write(_slice(number).tobytes())


def read_volume(path: str) -> None:
    """Read a series or a NIfTI file as a volume for a network, as every command does."""
    from dpmed.data.decode.files import decode_file
    from dpmed.data.decode.preprocessing import Preprocessing

    wanted = Preprocessing(size=(64, 64, 64))
    assert decode_file(Path(path), wanted).values.shape == (64, 64, 64, 1)


def _picture(number: int) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
    return Image.fromarray(values)


def _slice(number: int) -> np.ndarray:
    """Values that a compressor has to work at, drawn once: slices are turns of one another."""
    return np.roll(_NOISE, 7 * number, axis=0)


_NOISE = np.random.default_rng(0).integers(0, 1024, SIDES, np.int16)
WRITERS: dict[str, Callable[[Path, int], None]] = {
    "table": write_table,
    "folder": write_folder,
    "cohort": lambda folder, runs: write_cohort(folder, runs, kinds=20),
    "cohort-differing": lambda folder, runs: write_cohort(folder, runs, kinds=runs),
    "series": write_series,
    "nifti": write_nifti,
    "nifti-gz": lambda folder, slices: write_nifti(folder, slices, name="volume.nii.gz"),
}


def main(arguments: Sequence[str]) -> None:
    """Write what is named first, of the size named second, into the folder named third."""
    name, size, folder = arguments
    WRITERS[name](Path(folder), int(size))


if __name__ == "__main__":
    main(sys.argv[1:])
