import pytest

from dpmed.data.normalise import CODE_CONSTANTS, normalisation, unnamed_patients
from dpmed.errors import InputError
from dpmed.progress import Silent


def test_public_constants_are_used_and_named(data_config):
    config = data_config("folder", root="x")
    assert normalisation(config, mean=(1.0,), std=(2.0,), channels=1, note=CODE_CONSTANTS) == (
        (1.0,),
        (2.0,),
        (CODE_CONSTANTS,),
    )
    assert normalisation(config, mean=(1.0,), std=(2.0,), channels=1, note=None)[2] == ()


def test_the_users_constants_win_and_are_named(data_config):
    config = data_config("folder", root="x", mean=[0.1], std=[0.2])
    mean, std, outside = normalisation(config, mean=(1.0,) * 3, std=(2.0,) * 3, channels=3, note=None)
    assert (mean, std) == ((0.1,) * 3, (0.2,) * 3)
    assert "ε does not cover" in outside[0]


def test_another_number_of_channels_is_refused(data_config):
    config = data_config("folder", root="x", mean=[0.1, 0.2], std=[0.2, 0.2])
    with pytest.raises(InputError, match="2 values, but samples have 3 channels"):
        normalisation(config, mean=(1.0,) * 3, std=(2.0,) * 3, channels=3, note=None)


@pytest.mark.parametrize(
    "keys", [{"mean": [0.1]}, {"std": [0.1]}, {"mean": [0.1], "std": [0.1, 0.2]}, {"mean": [0.0], "std": [0.0]}]
)
def test_half_a_normalisation_is_refused_by_the_config(data_config, keys):
    with pytest.raises(ValueError, match=r"must be given together|one value per channel|greater than 0"):
        data_config("folder", root="x", **keys)


def test_data_without_patients_say_so_in_the_ledger(phantom, data_config):
    from dpmed.data.readers.folder import read_folder

    plain = read_folder(data_config("folder", root=phantom("folder")), progress=Silent())
    pattern = "^(P[0-9]+)_"
    grouped = read_folder(data_config("folder", root=phantom("folder"), group_pattern=pattern), progress=Silent())
    unnamed = "it is unknown which images share a patient"
    assert sum(unnamed in sentence for sentence in plain.info.outside_accounting) == 1
    assert not any(unnamed in sentence for sentence in grouped.info.outside_accounting)
    assert unnamed in unnamed_patients("The files name")
