"""CIFAR-10, binary version: 60,000 pictures of 32 × 32 pixels.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009). Layout: `data_batch_1.bin` …
`data_batch_5.bin` and `test_batch.bin`; a record is one byte for the class and 3072 for the red, green and blue plane.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dpmed.config.data import Cifar10Data
from dpmed.data.base import Info, Split
from dpmed.data.listing.sources import Root, check_distinct
from dpmed.data.normalise import CODE_CONSTANTS
from dpmed.data.storage.download import OpenUrl, download, extract_named, open_url
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.errors import InputError
from dpmed.files import make_folder
from dpmed.progress import Progress

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
FOLDER = "cifar-10-batches-bin"
RECORD_BYTES = 1 + 3 * 32 * 32
ARCHIVE = "cifar-10-binary.tar.gz"
_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
_MD5 = "c32a1d4ab5d03f1284b67883e8d13530"  # as published beside it
_ARCHIVE_BYTES = 170_052_171
_MAX_FILE_BYTES = 1 << 30
# Constants of the paper (Ziller et al., 2024), of the training pictures.
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def read_cifar10(config: Cifar10Data, *, progress: Progress, open_url: OpenUrl = open_url) -> ArrayDataset:
    """All pictures, in memory; they are downloaded if they are missing and the config permits it.

    Args:
        config: where they are.
        progress: reports a download.
        open_url: opens an address with headers.

    Raises:
        InputError: a file is missing, damaged or of another format.
        RunError: the download failed.
    """
    folder = _locate(config, progress, open_url)
    root = Root(folder)
    paths = [root.locate(name, source=str(folder)) for name in (*TRAIN_FILES, TEST_FILE)]
    check_distinct([(path,) for path in paths])
    parts = [_read_file(path) for path in paths]
    records = np.concatenate(parts)
    labels = records[:, 0].astype(np.int32)
    pixels = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    train = len(records) - len(parts[-1])
    split = Split(train=np.arange(train), validation=np.zeros(0, np.int64), test=np.arange(train, len(records)))
    info = Info(
        name="cifar10",
        task="classification",
        input_shape=(32, 32, 3),
        class_names=CLASSES,
        scale=255.0,
        mean=_MEAN,
        std=_STD,
        unit="image",
        outside_accounting=(CODE_CONSTANTS,),
    )
    groups = [str(number) for number in range(len(labels))]
    return ArrayDataset(
        info, Listing(labels=labels, groups=groups, official_split=split), inputs=pixels, targets=labels
    )


def _locate(config: Cifar10Data, progress: Progress, open_url: OpenUrl) -> Path:
    for folder in (config.root, config.root / FOLDER):
        if (folder / TEST_FILE).exists():
            return folder
    archive = config.root / ARCHIVE
    if not archive.exists():
        if not config.download:
            raise InputError(
                f"holds no {TEST_FILE}",
                where=f"data.root = {str(config.root)!r}",
                remedy=f"Put {ARCHIVE} from {_URL} there, allow data.download, or try `dpmed phantom cifar10`.",
            )
        download(_URL, archive, md5=_MD5, size=_ARCHIVE_BYTES, progress=progress, open_url=open_url)
    folder = make_folder(config.root / FOLDER)
    # The test file is written last, since its presence means that everything is there.
    extract_named(archive, TRAIN_FILES, folder)
    extract_named(archive, [TEST_FILE], folder)
    return folder


def _read_file(path: Path) -> UInt8[np.ndarray, "record byte"]:
    try:
        size = path.stat().st_size
        if size == 0 or size % RECORD_BYTES or size > _MAX_FILE_BYTES:
            raise InputError(
                f"has {size:,} bytes, which is not a whole number of records of {RECORD_BYTES} bytes", where=str(path)
            )
        records = np.fromfile(path, np.uint8).reshape(-1, RECORD_BYTES)
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error
    if records[:, 0].max() >= len(CLASSES):
        raise InputError(f"holds the class {records[:, 0].max()}; there are {len(CLASSES)}", where=str(path))
    return records
