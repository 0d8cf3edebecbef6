from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_voi_lut

from dpmed.data.decode.dicom import open_dicom
from dpmed.data.decode.dicom_values import bits_of, linear_window, read_dicom_picture, rescale_of
from dpmed.data.decode.window import to_depth
from dpmed.errors import InputError
from tests.written_dicom import write_dicom

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
RAMP = np.array([[0, 585, 1170, 1755], [2340, 2925, 3510, 4095]], np.uint16)
TWELVE = {"BitsStored": 12, "HighBit": 11}


def picture(path, values=RAMP, window=None, **tags):
    return read_dicom_picture(open_dicom(write_dicom(path, values, **tags)), window=window)


def test_inverted_pictures_are_turned_over_within_their_stored_range(tmp_path):
    found = picture(tmp_path / "x", PhotometricInterpretation="MONOCHROME1", **TWELVE)
    np.testing.assert_allclose(found[..., 0], 1 - RAMP / 4095, atol=1e-6)
    assert to_depth(found, 16).ravel()[[0, -1]].tolist() == [65535, 0]
    signed = np.array([[-2048, -1, 0, 2047]], np.int16)
    found = picture(tmp_path / "y", signed, PhotometricInterpretation="MONOCHROME1", **TWELVE)
    np.testing.assert_allclose(found[0, :, 0], [1, 2048 / 4095, 2047 / 4095, 0], atol=1e-6)


def test_turning_over_twice_is_the_picture_itself(tmp_path):
    once = picture(tmp_path / "x", PhotometricInterpretation="MONOCHROME1", **TWELVE)
    twice = picture(tmp_path / "y", 4095 - RAMP, PhotometricInterpretation="MONOCHROME1", **TWELVE)
    np.testing.assert_allclose(once, 1 - twice, atol=1e-6)


def test_without_a_window_the_range_of_the_stored_bits_counts_and_for_ct_hu(tmp_path):
    np.testing.assert_allclose(picture(tmp_path / "x", **TWELVE)[..., 0], RAMP / 4095, atol=1e-6)
    scaled = picture(tmp_path / "y", RescaleSlope=-2, RescaleIntercept=7, **TWELVE)
    np.testing.assert_allclose(scaled[..., 0], 1 - RAMP / 4095, atol=1e-6)
    ct = picture(tmp_path / "z", Modality="CT", RescaleSlope=2, RescaleIntercept=-1024, **TWELVE)
    np.testing.assert_allclose(ct[..., 0], np.clip(RAMP * 2.0 / 4095, 0, 1), atol=1e-6)


def test_how_a_screen_shows_a_quantity_does_not_change_it(tmp_path):
    tags = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, **TWELVE}
    plain, inverted = (
        picture(tmp_path / name, PhotometricInterpretation=name, **tags) for name in ("MONOCHROME2", "MONOCHROME1")
    )
    np.testing.assert_array_equal(plain, inverted)
    shown = {"WindowCenter": 1000, "WindowWidth": 2000}
    shown |= {"PhotometricInterpretation": "MONOCHROME1"}
    path = write_dicom(tmp_path / "shown", RAMP, **tags, **shown)
    assert read_dicom_picture(open_dicom(path), window="header")[0, 0, 0] == 1


def test_a_screenshot_of_a_ct_holds_no_hu(tmp_path):
    values = np.array([[0, 128, 255]], np.uint8)
    found = picture(tmp_path / "x", values, Modality="CT")
    np.testing.assert_allclose(found[..., 0], values / 255, atol=1e-6)
    inverted = picture(tmp_path / "y", values, Modality="CT", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(inverted, 1 - found, atol=1e-6)


def test_an_empty_rescale_is_none(tmp_path):
    path = write_dicom(tmp_path / "x", RAMP, RescaleSlope="", RescaleIntercept="", **TWELVE)
    assert rescale_of(open_dicom(path), 0) == (1.0, 0.0)


def test_a_window_of_ones_own_wins_and_percentiles_are_those_of_the_picture(tmp_path):
    found = picture(tmp_path / "x", window=(585.0, 3510.0), Modality="CT", **TWELVE)
    np.testing.assert_allclose(found[..., 0], (np.clip(RAMP.astype(float), 585, 3510) - 585) / 2925, atol=1e-6)
    values = np.random.default_rng(0).normal(500, 50, (60, 60)).astype(np.int16)
    low, high = np.percentile(values, [0.5, 99.5])
    found = picture(tmp_path / "y", values, window="percentiles")
    np.testing.assert_allclose(found[..., 0], (np.clip(values, low, high) - low) / (high - low), atol=1e-4)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_window_of_the_header_is_applied_as_pydicom_does(tmp_path, function, photometric):
    tags = {"WindowCenter": [2000, 1], "WindowWidth": [1500, 2], "VOILUTFunction": function, **TWELVE}
    path = write_dicom(tmp_path / "x", RAMP, PhotometricInterpretation=photometric, **tags)
    expected = apply_voi_lut(RAMP, pydicom.dcmread(path)) / 4095
    found = read_dicom_picture(open_dicom(path), window="header")[..., 0]
    np.testing.assert_allclose(found, 1 - expected if photometric == "MONOCHROME1" else expected, atol=1e-3)


def test_the_table_of_the_header_is_applied_as_pydicom_does(tmp_path):
    item = Dataset()
    item.add_new(0x00283002, "US", [4096, 0, 12])
    item.add_new(0x00283006, "US", (np.sqrt(np.arange(4096) / 4095) * 4095).astype(int).tolist())
    path = write_dicom(tmp_path / "x", RAMP, VOILUTSequence=[item], **TWELVE)
    found = read_dicom_picture(open_dicom(path), window="header")[..., 0]
    np.testing.assert_allclose(found, np.sqrt(RAMP / 4095), atol=1e-3)
    item[0x00283002].value = [4096, 0, 77]
    with pytest.raises(InputError, match="damaged table"):
        picture(tmp_path / "y", window="header", VOILUTSequence=[item])


def test_the_modalitys_table_is_applied(tmp_path):
    item = Dataset()
    item.add_new(0x00283002, "US", [4096, 0, 16])
    item.add_new(0x00283006, "US", (65535 - 16 * np.arange(4096)).tolist())
    found = picture(tmp_path / "x", ModalityLUTSequence=[item], **TWELVE)
    np.testing.assert_allclose(found[..., 0], (65535 - 16.0 * RAMP) / 65535, atol=1e-5)


@pytest.mark.parametrize(
    "tags", [{}, {"WindowCenter": 5}, {"WindowCenter": 5, "WindowWidth": 0}, {"WindowCenter": 5, "WindowWidth": 1}]
)
def test_a_header_without_a_usable_window_is_refused_where_it_is_wanted(tmp_path, tags):
    with pytest.raises(InputError, match=r"x: has no usable VOI window"):
        picture(tmp_path / "x", window="header", **tags)


def test_ends_of_a_linear_window_are_half_a_step_inside():
    assert linear_window(2048.0, 4096.0, "LINEAR") == (0, 4095)
    assert linear_window(2048.0, 4096.0, "LINEAR_EXACT") == (0, 4096)


def test_colours_keep_their_range_and_palettes_are_looked_up(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    np.testing.assert_allclose(picture(tmp_path / "x", colours, window=(0.0, 1.0)), colours / 255, atol=1e-6)
    dataset = pydicom.dcmread(BUNDLED / "examples_palette.dcm")
    expected = apply_color_lut(dataset.pixel_array, dataset)
    found = read_dicom_picture(open_dicom(BUNDLED / "examples_palette.dcm"))
    np.testing.assert_allclose(found, expected / np.iinfo(expected.dtype).max, atol=1e-6)


def test_a_palette_that_unfolds_without_end_is_refused(tmp_path):
    words = np.array([0, 1, 5, *[1, 65535, 7] * 5000], np.uint16)
    tags = {}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"Segmented{colour}PaletteColorLookupTableData"] = words.tobytes()
    with pytest.raises(InputError, match="expands to too many"):
        picture(tmp_path / "x", RAMP, PhotometricInterpretation="PALETTE COLOR", **tags)


def test_of_many_frames_the_middle_one_is_taken(tmp_path):
    frames = np.arange(5 * 12, dtype=np.uint16).reshape(5, 3, 4)
    np.testing.assert_allclose(picture(tmp_path / "x", frames)[..., 0], frames[2] / 65535, atol=1e-6)


def test_more_than_16_bits_need_a_window(tmp_path):
    values = RAMP.astype(np.uint32) * 1000
    with pytest.raises(InputError, match=r"more than 16 bits.*data\.window"):
        picture(tmp_path / "x", values)
    found = picture(tmp_path / "x", values, window=(0.0, 4.095e6))
    np.testing.assert_allclose(found[..., 0], RAMP / 4095, atol=1e-6)


def test_the_depth_follows_what_the_header_says(tmp_path):
    eight = RAMP.astype(np.uint8)
    assert bits_of(open_dicom(write_dicom(tmp_path / "a", eight))) == 8
    assert bits_of(open_dicom(write_dicom(tmp_path / "b", RAMP, **TWELVE))) == 12
    assert bits_of(open_dicom(write_dicom(tmp_path / "c", eight, RescaleSlope=2, RescaleIntercept=0))) == 16
    palette = pydicom.dcmread(BUNDLED / "examples_palette.dcm").RedPaletteColorLookupTableDescriptor[2]
    assert bits_of(open_dicom(BUNDLED / "examples_palette.dcm")) == palette
    content = write_dicom(tmp_path / "d", eight, RescaleSlope="1234567", RescaleIntercept=0).read_bytes()
    (tmp_path / "d").write_bytes(content.replace(b"1234567", b"Erika M"))
    with pytest.raises(InputError, match="cannot be decoded as DICOM") as caught:
        bits_of(open_dicom(tmp_path / "d"))
    assert "Erika" not in str(caught.value) and caught.value.__context__ is None


@pytest.mark.parametrize("slope", [0, float("inf"), float("nan")])
def test_a_useless_rescale_is_refused(tmp_path, slope):
    file = open_dicom(write_dicom(tmp_path / "x", RAMP))
    file.dataset.RescaleSlope = pydicom.valuerep.DSfloat(slope) if slope == 0 else slope
    file.dataset.RescaleIntercept = 0
    with pytest.raises(InputError, match="no usable rescale"):
        rescale_of(file, 0)
