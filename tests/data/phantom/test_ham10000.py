from collections import defaultdict

from PIL import Image

from dpmed.data.listing.sources import read_table
from dpmed.data.phantom.ham10000 import write_ham10000
from dpmed.data.readers.ham10000 import DIAGNOSES, METADATA
from dpmed.progress import Silent


def test_pictures_have_the_real_size_and_lesions_one_diagnosis(tmp_path):
    write_ham10000(tmp_path, num=24, seed=1, progress=Silent())
    table = read_table(tmp_path / METADATA, ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"])
    pictures = sorted(tmp_path.rglob("*.jpg"))
    assert [path.stem for path in pictures] == sorted(table.column("image_id"))
    with Image.open(pictures[0]) as image:
        assert image.size == (600, 450) and image.format == "JPEG"
    diagnoses = defaultdict(set)
    for lesion, diagnosis in zip(table.column("lesion_id"), table.column("dx"), strict=True):
        diagnoses[lesion].add(diagnosis)
    assert all(len(found) == 1 for found in diagnoses.values())
    assert len(diagnoses) < len(table)
    assert set().union(*diagnoses.values()) == set(DIAGNOSES)
    assert {path.parent.name for path in pictures} == {"HAM10000_images_part_1", "HAM10000_images_part_2"}


def test_fewer_samples_are_the_first_of_more(tmp_path):
    for name, num in (("few", 10), ("many", 14)):
        (tmp_path / name).mkdir()
        write_ham10000(tmp_path / name, num=num, seed=1, progress=Silent())
    few = {path.name: path.read_bytes() for path in (tmp_path / "few").rglob("*.jpg")}
    many = {path.name: path.read_bytes() for path in (tmp_path / "many").rglob("*.jpg")}
    assert few.items() <= many.items() and len(many) == 14
