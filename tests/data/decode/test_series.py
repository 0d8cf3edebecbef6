import gzip
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from dpmed.data.decode.series import read_series
from dpmed.data.decode.volume import Grid, read_intensities
from dpmed.errors import InputError
from tests.written_dicom import NUMBER, write_dicom, write_series

VOLUME = np.random.default_rng(1).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
NIBABELS = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"
PYDICOMS = Path(pydicom.__file__).parent / "data" / "test_files"


def meant(volume):
    return volume.voxels * volume.slope + volume.intercept


def test_slices_are_ordered_by_position_whatever_they_are_called(tmp_path):
    paths = write_series(tmp_path, VOLUME, RescaleSlope=2, RescaleIntercept=-1024)
    found = read_series(tmp_path)
    assert np.array_equal(meant(found), VOLUME.transpose(2, 1, 0) * 2.0 - 1024)
    assert np.array_equal(meant(read_series(paths)), meant(found)) and found.voxels.dtype == np.int16
    backwards = read_series(sorted(paths, reverse=True))
    assert np.array_equal(backwards.voxels, found.voxels) and np.array_equal(backwards.affine, found.affine)


def test_the_affine_puts_every_voxel_where_the_headers_say(tmp_path):
    turn = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    write_series(tmp_path, VOLUME, turn=turn, spacing=(0.8, 0.7, 2.5), origin=(10.0, -20.0, 30.0))
    affine = read_series(tmp_path).affine
    for column, row, number in ((0, 0, 0), (3, 2, 4), (6, 5, 1)):
        body = np.array([10.0, -20.0, 30.0]) + turn @ [0.7 * column, 0.8 * row, 2.5 * number]
        np.testing.assert_allclose(affine @ [column, row, number, 1], [-body[0], -body[1], body[2], 1], atol=1e-3)


def test_the_same_body_from_nifti_and_from_dicom_is_the_same_sample(tmp_path):
    write_series(tmp_path / "series", VOLUME, spacing=(1.0, 1.0, 2.0), origin=(0.0, 0.0, 0.0))
    # In RAS+ the first two axes run the other way.
    values = VOLUME.transpose(2, 1, 0)[::-1, ::-1]
    nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0])).to_filename(tmp_path / "x.nii")
    from dpmed.data.decode.nifti import read_nifti

    grid = Grid(shape=(4, 4, 4))
    ours = read_intensities(read_series(tmp_path / "series"), grid, window=(-500.0, 500.0))
    theirs = read_intensities(read_nifti(tmp_path / "x.nii"), grid, window=(-500.0, 500.0))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_real_volume_is_the_one_that_nibabel_reads(tmp_path):
    path = tmp_path / "philips"
    path.write_bytes(gzip.decompress((NIBABELS / "philips_mprage.dcm.gz").read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import wrapper_from_file

        theirs = wrapper_from_file(path)
        values, affine = theirs.get_data(), np.diag([-1.0, -1, 1, 1]) @ theirs.affine
    ours = read_series(path)
    # nibabel has rows first, and stacks the other way round.
    np.testing.assert_allclose(meant(ours), values.transpose(1, 0, 2)[:, :, ::-1])
    last = values.shape[2] - 1
    for column, row, number in ((0, 0, 0), (10, 20, 30), (5, 200, 7)):
        place = affine @ [row, column, last - number, 1]
        np.testing.assert_allclose(ours.affine @ [column, row, number, 1], place, atol=2e-3)


def test_a_file_of_many_frames_is_a_volume_by_its_functional_groups(tmp_path):
    frames = []
    for number in range(5):
        place, position = Dataset(), Dataset()
        position.ImagePositionPatient = [1.0, 2.0, 3.0 - 1.5 * number]  # stored from head to foot
        place.PlanePositionSequence = [position]
        frames.append(place)
    shared, plane, measures, values = Dataset(), Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.5, 0.4]
    values.RescaleSlope, values.RescaleIntercept = 3, 1
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    shared.PixelValueTransformationSequence = [values]
    path = write_dicom(
        tmp_path / "x", VOLUME, PerFrameFunctionalGroupsSequence=frames, SharedFunctionalGroupsSequence=[shared]
    )
    found = read_series(path)
    assert np.array_equal(meant(found), VOLUME[::-1].transpose(2, 1, 0) * 3.0 + 1)
    np.testing.assert_allclose(np.diag(found.affine), [-0.4, -0.5, 1.5, 1])
    np.testing.assert_allclose(found.affine[:3, 3], [-1, -2, 3.0 - 6])


def test_a_dose_is_a_volume_by_its_offsets():
    found = read_series(PYDICOMS / "rtdose.dcm")
    dataset = pydicom.dcmread(PYDICOMS / "rtdose.dcm")
    assert found.voxels.shape == (dataset.Columns, dataset.Rows, 15)
    steps = np.diff(dataset.GridFrameOffsetVector)
    np.testing.assert_allclose(np.linalg.norm(found.affine[:3, 2]), abs(steps.mean()), rtol=1e-6)


def test_slices_with_scales_of_their_own_are_brought_to_one(tmp_path):
    paths = write_series(tmp_path, VOLUME)
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.RescaleSlope, dataset.RescaleIntercept = number + 1, number
        dataset.save_as(path)
    expected = VOLUME.transpose(2, 1, 0) * np.arange(1, 6) + np.arange(5)
    assert np.array_equal(meant(read_series(tmp_path)), expected)


def test_inverted_slices_are_turned_over_within_their_stored_range(tmp_path):
    write_series(tmp_path, VOLUME, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(meant(read_series(tmp_path)), -1.0 - VOLUME.transpose(2, 1, 0))


def test_slices_in_hu_are_not_turned_over(tmp_path):
    write_series(tmp_path, VOLUME, PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=-24)
    assert np.array_equal(meant(read_series(tmp_path)), VOLUME.transpose(2, 1, 0) * 2.0 - 24)


def test_the_window_of_slices_that_are_turned_over_is_turned_over_with_them(tmp_path):
    tags = {"Modality": "MG", "RescaleSlope": 2, "RescaleIntercept": 30, "VOILUTFunction": "LINEAR_EXACT"}
    write_series(tmp_path, VOLUME, WindowCenter=400, WindowWidth=500, PhotometricInterpretation="MONOCHROME1", **tags)
    found = read_series(tmp_path)
    low, high = found.display
    shown = np.clip((meant(found) - low) / (high - low), 0, 1)
    expected = np.clip((VOLUME.transpose(2, 1, 0) * 2.0 + 30 - 150) / 500, 0, 1)
    np.testing.assert_allclose(shown, 1 - expected, atol=1e-6)


def test_the_headers_window_is_that_of_the_middle_slice(tmp_path):
    write_series(tmp_path / "a", VOLUME, WindowCenter=40, WindowWidth=401)
    assert read_series(tmp_path / "a").display == (-160.5, 239.5)
    write_series(tmp_path / "b", VOLUME)
    assert read_series(tmp_path / "b").display is None


def change(path, **tags):
    dataset = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


def shift(path, millimetres):
    position = [float(value) for value in pydicom.dcmread(path).ImagePositionPatient]
    change(path, ImagePositionPatient=[position[0], position[1], position[2] + millimetres])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda paths: paths[2].unlink(),
            r"slices are missing between \d+ and \d+, which are 5\.00 mm apart, the other slices 2\.50",
        ),
        (lambda paths: shift(paths[2], 2.5), r"\d+ and \d+ are at the same position"),
        (lambda paths: shift(paths[2], 0.4), r"\d+ and \d+ are 2\.90 mm apart|are 2\.10 mm apart"),
        (lambda paths: change(paths[1], SeriesInstanceUID="1.2.3"), "holds 2 series, such as the files"),
        (lambda paths: change(paths[1], PatientID="other"), "holds 2 patients, such as the files"),
        (lambda paths: change(paths[1], ImageOrientationPatient=[0, 1, 0, 1, 0, 0]), "has another orientation"),
        (lambda paths: change(paths[1], PixelSpacing=[0.8, 0.9]), "pixel spacing"),
        (lambda paths: change(paths[1], Rows=5), r"has 7 x 5 pixels, but \d+ 7 x 6|has 7 x 6 pixels"),
        (lambda paths: change(paths[1], ImagePositionPatient=None), r"does not say where it is in space"),
        (lambda paths: change(paths[1], ModalityLUTSequence=[Dataset()]), r"gives its values by a table"),
        (
            lambda paths: change(paths[1], ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
            r"does not say where it is in space",
        ),
        (lambda paths: paths[1].write_bytes(b"junk"), r"cannot be decoded as DICOM|holds no picture"),
        (lambda paths: [path.unlink() for path in paths[1:]], "is one slice, not a volume"),
        (lambda paths: write_dicom(paths[1], VOLUME, SeriesInstanceUID="1.2.3"), "several multi-frame files"),
    ],
)
def test_what_is_no_even_stack_is_refused_by_name(tmp_path, spoil, message):
    paths = write_series(tmp_path, VOLUME)
    spoil(paths)
    with pytest.raises(InputError, match=message) as caught:
        read_series(tmp_path)
    assert str(tmp_path) in str(caught.value) and NUMBER not in str(caught.value)


def test_a_slice_aside_of_the_line_is_refused_but_a_tilted_stack_is_not(tmp_path):
    for name, aside in (("tilted", lambda number: 0.7 * number), ("aside", lambda number: 3.0 * (number == 2))):
        for number, path in enumerate(write_series(tmp_path / name, VOLUME)):
            position = [float(value) for value in pydicom.dcmread(path).ImagePositionPatient]
            change(path, ImagePositionPatient=[position[0], position[1] + aside(number), position[2]])
    assert read_series(tmp_path / "tilted").affine[1, 2] == pytest.approx(-0.7)
    with pytest.raises(InputError, match="lies beside the line"):
        read_series(tmp_path / "aside")


def test_colour_and_what_is_not_there_are_refused(tmp_path):
    write_series(tmp_path / "colour", np.zeros((3, 4, 5, 3), np.uint8))
    with pytest.raises(InputError, match="is in colour; volumes must be greyscale"):
        read_series(tmp_path / "colour")
    with pytest.raises(InputError, match="there is no such file or folder"):
        read_series(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds 0 files"):
        read_series(tmp_path / "empty")


def test_a_table_of_contents_beside_the_slices_is_passed_over(tmp_path):
    write_series(tmp_path, VOLUME)
    (tmp_path / "DICOMDIR").write_bytes(b"anything")
    (tmp_path / ".hidden").write_bytes(b"anything")
    assert read_series(tmp_path).voxels.shape == (7, 6, 5)
