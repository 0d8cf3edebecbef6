from collections import defaultdict

from dpmed.data.phantom.folder import CLASSES, write_folder
from dpmed.progress import Silent


def test_a_patient_has_one_class_and_some_have_several_pictures(tmp_path):
    write_folder(tmp_path, num=30, seed=0, progress=Silent())
    classes, counts = defaultdict(set), defaultdict(int)
    for path in tmp_path.rglob("P*"):
        patient = path.name.split("_")[0]
        classes[patient].add(path.parent.name)
        counts[patient] += 1
    assert sum(counts.values()) == 30 and max(counts.values()) > 1
    assert all(len(found) == 1 for found in classes.values())
    assert set().union(*classes.values()) == set(CLASSES)
    assert {path.suffix for path in tmp_path.rglob("P*")} == {".png", ".jpg"}
