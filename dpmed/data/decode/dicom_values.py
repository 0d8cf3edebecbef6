"""What the stored values of a DICOM file mean: modality and VOI transformation, inverted grey, palettes.

Pictures are mapped to values from 0 to 1 by fixed rules. For greyscale, in this order:

1. `MONOCHROME1` (the lowest value is the brightest) is inverted within the range that the stored bits can hold. It says
how a screen shows the values, not what they mean, so measured quantities (HU, activity) are not inverted. 2. Rescale
slope and intercept, or the modality's table, give the values meant: HU for CT. 3. A window is clipped to and becomes 0
to 1: the one asked for; else -1024 to 3071 for HU; else the range that the stored bits can hold. `header` takes the VOI
window or table of the file (then step 1 comes last, as on a screen, whatever the values mean); `percentiles` takes the
0.5th to 99.5th of the picture.

Colours keep their full range.

Source: DICOM PS3.3 C.11.1 (modality), C.11.2 (VOI), C.7.6.3 (photometric interpretation, palettes).
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from dpmed.data.decode.dicom import DicomFile, guarded
from dpmed.data.decode.window import HU_WINDOW, Window, percentile_window, to_unit
from dpmed.errors import InputError

_MAX_TABLE = 1 << 16
_EIGHT_BITS, _SIXTEEN_BITS = 8, 16
_WORD_BITS = (8, 16)
_COLOURS = 3
# Rescaled values of these modalities are a quantity: HU, and activity or uptake.
_MEASURED = ("CT", "PT")


def read_dicom_picture(file: DicomFile, *, window: Window = None) -> Float[np.ndarray, "height width channel"]:
    """One frame of a file as values from 0 to 1; of several frames, the middle one.

    Args:
        file: the opened file.
        window: window of grey values; see the module.

    Returns:
        One channel for grey, three for colour and palettes.

    Raises:
        InputError: the frame is damaged, has values that are not finite, or has no window where one is needed.
    """
    return guarded(file.path, lambda: _picture(file, file.frames // 2, window))


def bits_of(file: DicomFile) -> int:
    """The number of bits of the picture's values: 8 if that is enough for all that the file declares, otherwise more.

    Raises:
        InputError: the header is damaged.
    """
    return guarded(file.path, lambda: _bits_of(file))


def _bits_of(file: DicomFile) -> int:
    plain = "RescaleSlope" not in file.dataset or float(file.dataset.RescaleSlope or 1) == 1
    if file.real or not plain or "ModalityLUTSequence" in file.dataset:
        return max(file.bits, _SIXTEEN_BITS)
    if not file.grey and file.samples == 1:  # a palette: the depth of the colours counts, not that of their indices
        return (
            _EIGHT_BITS if int(file.dataset.RedPaletteColorLookupTableDescriptor[2]) <= _EIGHT_BITS else _SIXTEEN_BITS
        )
    return file.bits


def rescale_of(file: DicomFile, frame: int) -> tuple[float, float]:
    """Slope and intercept from stored to real values; 1 and 0 if the header gives none.

    Raises:
        InputError: they are not usable numbers.
    """
    holder = functional_group(file, frame, "PixelValueTransformationSequence")
    given = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
    # An element may be present and empty.
    slope, intercept = (
        other if value is None else float(value) for value, other in zip(given, (1.0, 0.0), strict=True)
    )
    if not math.isfinite(slope) or not math.isfinite(intercept) or slope == 0:
        raise InputError("has no usable rescale slope and intercept", where=str(file.path))
    return slope, intercept


def functional_group(file: DicomFile, frame: int, keyword: str) -> Any:
    """The place of one frame's tags: its own group, that of all frames, or the header itself."""
    groups = file.dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = file.dataset.get("SharedFunctionalGroupsSequence") or []
    for holder in [*groups[frame : frame + 1], *shared[:1]]:
        items = holder.get(keyword)
        if items:
            return items[0]
    return file.dataset


def is_measured(file: DicomFile, frame: int) -> bool:
    """Whether rescaled values are a physical quantity, which must stay what it is; a screenshot of a CT has none."""
    holder = functional_group(file, frame, "PixelValueTransformationSequence")
    return file.dataset.get("Modality") in _MEASURED and holder.get("RescaleSlope") is not None


def is_inverted(file: DicomFile, frame: int) -> bool:
    """Whether the lowest value is the brightest, and may be made the darkest."""
    return file.photometric == "MONOCHROME1" and not is_measured(file, frame)


def turned_over(file: DicomFile, stored: Shaped[np.ndarray, "*shape"], frame: int) -> Float[np.ndarray, "*shape"]:
    """Stored values of a greyscale frame with the lowest as the darkest, within the range that the bits can hold."""
    values = stored.astype(np.float32)
    if not is_inverted(file, frame):
        return values
    if file.real:
        raise InputError("inverts brightness, but its values have no range", where=str(file.path))
    low, high = file.stored_range
    return np.float32(low + high) - values


def _picture(file: DicomFile, frame: int, window: Window) -> Float[np.ndarray, "height width channel"]:
    stored = file.stored(frame)
    if not file.grey:
        return _colours(file, stored)
    if window == "header":
        values = _by_header(file, stored, frame)
    else:
        meant, limits = _meant(file, turned_over(file, stored, frame), frame)
        values = to_unit(meant, _window(file, frame, meant, limits, window))
    if not np.isfinite(values).all():
        raise InputError("holds values that are not finite", where=str(file.path))
    return values[..., None]


def _colours(
    file: DicomFile, stored: Shaped[np.ndarray, "rows columns *sample"]
) -> Float[np.ndarray, "rows columns 3"]:
    if stored.ndim == 2:  # noqa: PLR2004 rows and columns: numbers of colours
        from pydicom.pixels.processing import apply_color_lut

        _check_palette(file)
        colours = apply_color_lut(stored, file.dataset)[..., :_COLOURS]
        return colours.astype(np.float32) / np.float32(np.iinfo(colours.dtype).max)
    if file.signed or file.real:
        raise InputError("declares colours of a kind that is not read", where=str(file.path))
    return to_unit(stored.astype(np.float32), (0.0, float(file.stored_range[1])))


def _meant(
    file: DicomFile, values: Float[np.ndarray, "rows columns"], frame: int
) -> tuple[Float[np.ndarray, "rows columns"], tuple[float, float] | None]:
    """The real values, and their possible range."""
    if "ModalityLUTSequence" in file.dataset:
        from pydicom.pixels.processing import apply_modality_lut

        table = file.dataset.ModalityLUTSequence[0]
        bits = _check_table(file, table.LUTDescriptor)
        return apply_modality_lut(values.astype(np.int64), file.dataset).astype(np.float32), (0.0, 2.0**bits - 1)
    slope, intercept = rescale_of(file, frame)
    with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused
        meant = values * np.float32(slope) + np.float32(intercept)
    if not np.isfinite(meant).all():
        raise InputError("holds values that are not finite", where=str(file.path))
    if file.real or file.bits > _SIXTEEN_BITS:
        return meant, None
    ends = sorted(value * slope + intercept for value in file.stored_range)
    return meant, (ends[0], ends[1])


def _window(
    file: DicomFile,
    frame: int,
    meant: Float[np.ndarray, "rows columns"],
    limits: tuple[float, float] | None,
    window: Window,
) -> tuple[float, float]:
    if isinstance(window, tuple):
        return window
    if window == "percentiles":
        return percentile_window(meant)
    if file.dataset.get("Modality") == "CT" and is_measured(file, frame):
        return HU_WINDOW
    if limits is None:
        raise InputError(
            "holds values of more than 16 bits, whose range is unknown",
            where=str(file.path),
            remedy="Set data.window to the relevant range, or to 'percentiles'.",
        )
    return limits


def _by_header(
    file: DicomFile, stored: Shaped[np.ndarray, "rows columns"], frame: int
) -> Float[np.ndarray, "rows columns"]:
    """Values from 0 to 1 by the VOI window or table of the file, as a screen would show them."""
    meant, _ = _meant(file, stored.astype(np.float32), frame)
    tables = file.dataset.get("VOILUTSequence")
    if tables:
        values = _by_voi_table(file, meant, tables[0])
    else:
        centre, width, function = voi_of(file, frame)
        if function == "SIGMOID":
            values = (1 / (1 + np.exp(np.clip(-4 * (meant - centre) / width, -80, 80)))).astype(np.float32)
        else:
            values = to_unit(meant, linear_window(centre, width, function))
    return np.float32(1) - values if file.photometric == "MONOCHROME1" else values


def voi_of(file: DicomFile, frame: int) -> tuple[float, float, str]:
    """Centre, width and function of the first VOI window in the header.

    Raises:
        InputError: there is no usable one.
    """
    holder = functional_group(file, frame, "FrameVOILUTSequence")
    try:
        centre, width = (_first(holder.get(name)) for name in ("WindowCenter", "WindowWidth"))
    except (TypeError, ValueError, IndexError):
        centre = width = math.nan
    function = str(holder.get("VOILUTFunction", "LINEAR") or "LINEAR")
    usable = math.isfinite(centre) and (width > 1 or (width > 0 and function != "LINEAR"))
    if not usable or not math.isfinite(width) or function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise InputError(
            "has no usable VOI window in its header",
            where=str(file.path),
            remedy="Set data.window to a range, or leave the file out.",
        )
    return centre, width, function


def linear_window(centre: float, width: float, function: str) -> tuple[float, float]:
    """The ends of a VOI window; those of `LINEAR` are half a step further inside (PS3.3 C.11.2.1.2)."""
    if function == "LINEAR":
        return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return centre - width / 2, centre + width / 2


def _by_voi_table(
    file: DicomFile, meant: Float[np.ndarray, "rows columns"], table: Any
) -> Float[np.ndarray, "rows columns"]:
    from pydicom.pixels.processing import apply_voi

    bits = _check_table(file, table.LUTDescriptor)
    shown = apply_voi(np.rint(meant).astype(np.int64), file.dataset, index=0)
    return to_unit(shown.astype(np.float32), (0.0, 2.0**bits - 1))


def _first(value: Any) -> float:
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)


def _check_table(file: DicomFile, descriptor: Any) -> int:
    """The bits of a table's entries, after checking the table's size."""
    entries, _, bits = (int(value) for value in descriptor)
    if not 0 <= entries <= _MAX_TABLE or not _EIGHT_BITS <= bits <= _SIXTEEN_BITS:
        raise InputError("has a damaged table of grey values", where=str(file.path))
    return bits


def _check_palette(file: DicomFile) -> None:
    """Refuse palettes that would expand to more entries than a palette can have."""
    for colour in ("Red", "Green", "Blue"):
        descriptor = file.dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
        entries, _, bits = (int(value) for value in descriptor)
        segments = file.dataset.get(f"Segmented{colour}PaletteColorLookupTableData")
        if not 0 <= entries <= _MAX_TABLE or bits not in _WORD_BITS:
            raise InputError("has a damaged palette", where=str(file.path))
        if segments is not None and _unfolded(np.frombuffer(segments, f"<u{bits // 8}")) > _MAX_TABLE:
            raise InputError("has a palette that expands to too many colours", where=str(file.path))


def _unfolded(words: Shaped[np.ndarray, " word"]) -> int:
    """The number of entries that the segments of a palette stand for; one that repeats others counts as too many."""
    total = place = 0
    while place + 1 < len(words):
        kind, length = int(words[place]), int(words[place + 1])
        if kind not in (0, 1):
            return _MAX_TABLE + 1
        total += length
        place += 2 + (length if kind == 0 else 1)
    return total
