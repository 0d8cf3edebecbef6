from dpmed.data.listing.sources import read_table
from dpmed.data.phantom.radimagenet import write_radimagenet
from dpmed.data.readers.radimagenet import LISTS
from dpmed.progress import Silent


def test_lists_share_no_picture_and_name_all_with_every_modality(tmp_path):
    write_radimagenet(tmp_path, num=90, seed=0, progress=Silent())
    listed = {part: read_table(tmp_path / name, ["filename"]).column("filename") for part, name in LISTS.items()}
    everything = [name for names in listed.values() for name in names]
    assert len(set(everything)) == len(everything) == 90
    assert set(everything) == {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert {name.split("/")[0] for name in listed["train"]} == {"CT", "MR", "US"}
    assert len(listed["train"]) == 72 and len(listed["validation"]) == len(listed["test"]) == 9
