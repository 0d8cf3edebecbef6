import random

import nibabel
import numpy as np
import pytest
from PIL import Image

from dpmed.data.decode.files import bits_per_value, decode_file, decode_sample, depth_for, grid_of, open_volume
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.errors import InputError
from tests.written_dicom import write_dicom, write_series

RAMP = np.arange(48, dtype=np.uint16).reshape(6, 8) * 85
PICTURE = Preprocessing(size=(6, 8), depth=16)
BODY = np.random.default_rng(1).integers(-900, 900, (5, 6, 7)).astype(np.int16)
VOLUME = Preprocessing(size=(7, 6, 5), window=(-1000.0, 1000.0))


def test_a_picture_is_the_same_from_any_file_of_the_same_values(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    Image.fromarray(RAMP).save(tmp_path / "b.tif")
    write_dicom(tmp_path / "c", RAMP)
    for name in ("a.png", "b.tif", "c"):
        found = decode_file(tmp_path / name, PICTURE)
        assert np.array_equal(found.values[..., 0], RAMP) and found.values.dtype == np.uint16
        assert found.geometry.shape == (6, 8) and found.geometry.affine is None
    again = decode_file((tmp_path / "c",), Preprocessing(size=(3, 4), channels=3, depth=16))
    assert again.values.shape == (3, 4, 3) and again.geometry.shape == (6, 8)


def test_a_volume_is_the_same_from_nifti_and_from_a_series_and_keeps_its_geometry(tmp_path):
    paths = write_series(tmp_path / "series", BODY, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
    nibabel.Nifti1Image(BODY.transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1])).to_filename(tmp_path / "x.nii.gz")
    expected = BODY.transpose(2, 1, 0)[::-1, ::-1, :, None]
    for source in (tmp_path / "series", paths, tmp_path / "x.nii.gz", (tmp_path / "x.nii.gz",)):
        found = decode_file(source, VOLUME)
        assert np.array_equal(found.values, expected) and found.values.dtype == np.float16
        assert found.geometry.shape == (7, 6, 5)
        np.testing.assert_allclose(found.geometry.affine, np.diag([-1.0, -1, 1, 1]), atol=1e-9)


def test_windows_of_volumes(tmp_path):
    write_series(tmp_path / "s", BODY, WindowCenter=100, WindowWidth=401)
    found = decode_file(tmp_path / "s", Preprocessing(size=(7, 6, 5), window="header")).values
    expected = (np.clip(BODY.transpose(2, 1, 0)[::-1, ::-1], -100.5, 299.5) + 100.5) / 400
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-3)
    found = decode_file(tmp_path / "s", Preprocessing(size=(7, 6, 5), window="percentiles")).values
    assert (found.min(), found.max()) == (0, 1)
    image = nibabel.Nifti1Image(BODY, np.eye(4))
    image.to_filename(tmp_path / "x.nii")
    with pytest.raises(InputError, match=r"x\.nii: has no window in its header"):
        decode_file(tmp_path / "x.nii", Preprocessing(size=(5, 6, 7), window="header"))
    image.header["cal_min"], image.header["cal_max"] = -10, 10
    image.to_filename(tmp_path / "x.nii")
    found = decode_file(tmp_path / "x.nii", Preprocessing(size=(5, 6, 7), window="header")).values
    np.testing.assert_allclose(found[..., 0], (np.clip(BODY, -10, 10) + 10) / 20, atol=1e-3)


def test_what_is_wanted_and_what_is_there_must_fit(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    nibabel.Nifti1Image(BODY, np.eye(4)).to_filename(tmp_path / "x.nii")
    paths = write_series(tmp_path / "s", BODY)
    cases = [
        (tmp_path / "a.png", VOLUME, "is a picture, not a volume"),
        (tmp_path / "x.nii", PICTURE, "is a volume, not a picture"),
        (paths, PICTURE, "is a series of 5 files, not one picture"),
        (paths[0], VOLUME, "is one slice, not a volume"),
        (tmp_path / "a.png", Preprocessing(size=(6, 8)), "16 bits per value, of which 8 would be kept"),
        (paths[0], Preprocessing(size=(6, 8)), "more than 8 bits per value, of which 8 would be kept"),
        (tmp_path / "x.nii", Preprocessing(size=(5, 6, 7), channels=2), "has 1 channels, not 2"),
        (tmp_path / "gone.png", PICTURE, "there is no such file"),
        (tmp_path / "gone", VOLUME, "there is no such file"),
    ]
    for source, wanted, message in cases:
        with pytest.raises(InputError, match=message):
            decode_file(source, wanted)
    assert open_volume(tmp_path / "x.nii").voxels.shape == BODY.shape


def test_deep_files_are_brought_to_8_bits_where_that_is_asked_for(tmp_path):
    write_dicom(tmp_path / "c", RAMP)
    found = decode_file(tmp_path / "c", Preprocessing(size=(6, 8), narrow=True, window=(0.0, 4095.0)))
    assert np.array_equal(found.values[..., 0], np.rint(RAMP / 4095 * 255))


def test_the_depth_of_a_file_is_read_from_its_header(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "deep.png")
    Image.fromarray(RAMP.astype(np.uint8)).save(tmp_path / "plain.jpg")
    write_dicom(tmp_path / "d", RAMP, BitsStored=12, HighBit=11)
    assert [bits_per_value(tmp_path / name) for name in ("deep.png", "plain.jpg", "d")] == [16, 8, 12]
    assert [depth_for(tmp_path / name) for name in ("deep.png", "plain.jpg", "d")] == [16, 8, 16]


def test_several_files_become_channels_each_by_its_own_window(tmp_path):
    for name, values in (("ct.nii", BODY), ("mr.nii", BODY + 5000)):
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / name)
    wanted = Preprocessing(size=(5, 6, 7), channels=2, files=2, windows=((-100.0, 100.0), "percentiles"))
    found = decode_sample([tmp_path / "ct.nii", tmp_path / "mr.nii"], wanted)
    assert found.values.shape == (5, 6, 7, 2) and found.geometry.shape == (5, 6, 7)
    assert np.array_equal(found.values[..., 0], np.clip(BODY, -100, 100)) and found.values[..., 1].max() == 1
    assert wanted.value_range == (-100, 100) and wanted.constants == ((0, 0.5), (50, 0.25))
    assert grid_of(wanted).shape == (5, 6, 7)
    nibabel.Nifti1Image(BODY[:4], np.eye(4)).to_filename(tmp_path / "other.nii")
    with pytest.raises(InputError, match=r"other\.nii: has 4x6x7 voxels, but its image ct\.nii"):
        decode_sample([tmp_path / "ct.nii", tmp_path / "other.nii"], wanted)
    with pytest.raises(ValueError, match="sources"):
        decode_sample([tmp_path / "ct.nii"], wanted)


def test_pictures_of_several_files_must_have_the_same_pixels(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    Image.fromarray(RAMP[:, ::-1].copy()).save(tmp_path / "b.png")
    wanted = Preprocessing(size=(6, 8), channels=2, files=2, depth=16)
    found = decode_sample([tmp_path / "a.png", tmp_path / "b.png"], wanted).values
    assert np.array_equal(found, np.stack([RAMP, RAMP[:, ::-1]], axis=-1))
    Image.fromarray(RAMP[:5]).save(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"c\.png: has 8 x 5 pixels, but a\.png has 8 x 6"):
        decode_sample([tmp_path / "a.png", tmp_path / "c.png"], wanted)


def mutated(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        place = rng.randrange(len(content))
        kind = rng.randrange(4)
        if kind == 0:
            content[place] = rng.randrange(256)
        elif kind == 1:
            content[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        elif kind == 2:
            del content[place : place + rng.randrange(1, 20)]
        else:
            content[place:place] = content[: rng.randrange(1, 20)]
        if not content:
            break
    return bytes(content)


@pytest.mark.parametrize("kind", ["picture", "deep", "dicom", "frames", "nifti"])
def test_any_damage_is_read_or_refused_by_name(tmp_path, kind):
    bases = {"picture": tmp_path / "a.jpg", "deep": tmp_path / "b.png", "nifti": tmp_path / "c.nii.gz"}
    Image.fromarray(RAMP.astype(np.uint8)).save(bases["picture"])
    Image.fromarray(RAMP).save(bases["deep"])
    nibabel.Nifti1Image(BODY, np.eye(4)).to_filename(bases["nifti"])
    bases["dicom"] = write_dicom(tmp_path / "d.dcm", RAMP, WindowCenter=5, WindowWidth=9)
    bases["frames"] = write_dicom(tmp_path / "e.dcm", BODY)
    rng, content = random.Random(kind), bases[kind].read_bytes()
    wanted = [Preprocessing(size=(4, 4), depth=16, window=window) for window in (None, "percentiles", "header")]
    wanted.append(Preprocessing(size=(4, 4, 4)))
    path = tmp_path / ("x" + "".join(bases[kind].suffixes))
    refused = 0
    for number in range(200):
        path.write_bytes(mutated(content, rng))
        try:
            found = decode_file(path, wanted[number % len(wanted)])
        except InputError as error:
            refused += 1
            assert error.where == str(path)
        else:
            assert found.values.shape == wanted[number % len(wanted)].input_shape
    assert refused > 20
