import numpy as np

from dpmed.auditing.membership import attack
from dpmed.auditing.scores import separate

ALONE = [str(number) for number in range(2000)]


def test_groups_are_attacked_by_themselves():
    generator = np.random.default_rng(0)
    member = generator.random(2000) < 0.5
    sex = np.where(generator.random(2000) < 0.3, "f", "")
    # Only one group is remembered.
    losses = generator.standard_normal(2000) - 2.0 * (member & (sex == "f"))
    rare = np.where(np.arange(2000) < 8, "rare", "common")
    found = attack(losses, member, {"sex": sex, "age": np.arange(2000), "site": np.zeros(2000), "rare": rare}, ALONE)
    assert [(one.column, one.value) for one in found] == [
        ("", ""), ("sex", "unknown"), ("sex", "f"), ("rare", "common"), ("rare", "rare"),
    ]  # fmt: skip
    everyone, unknown, female, _, few = found
    assert everyone.members == member.sum() and everyone.non_members == (~member).sum()
    assert female.separation == separate(-losses[sex == "f"], member[sex == "f"])
    assert female.separation.auc_interval[0] > everyone.separation.auc_interval[1] > 0.5
    assert unknown.separation.auc_interval[0] < 0.5 < unknown.separation.auc_interval[1]
    assert few.separation is None and "auc" not in few.to_json() and few.to_json()["column"] == "rare"
    assert "column" not in everyone.to_json() and everyone.to_json()["tpr_at_fpr_0.001_interval"][0] >= 0


def test_the_images_of_a_patient_are_one_piece_of_evidence():
    """Patients differ in how hard their images are; nothing is remembered, so 95 % of intervals hold an AUC of 0.5."""
    held = {"patient": 0, "image": 0}
    member, patients = np.arange(400) < 200, [f"p{number // 10}" for number in range(400)]
    for seed in range(100):
        generator = np.random.default_rng(seed)
        losses = np.repeat(generator.standard_normal(40), 10) + 0.3 * generator.standard_normal(400)
        for name, units in (("patient", patients), ("image", ALONE[:400])):
            low, high = attack(losses, member, {}, units)[0].separation.auc_interval
            held[name] += low <= 0.5 <= high
    assert held["patient"] >= 90
    assert held["image"] < 60, "as if the ten images of a patient told ten times as much"


def test_a_group_of_few_patients_with_many_images_is_not_told_apart():
    units = [f"p{number // 20}" for number in range(400)]
    losses, member = np.random.default_rng(0).random(400), np.arange(400) < 200
    (everyone,) = attack(losses, member, {}, units)
    assert (everyone.members, everyone.non_members) == (10, 10) and everyone.separation is not None
    (everyone,) = attack(losses[20:], member[20:], {}, units[20:])
    assert (everyone.members, everyone.non_members, everyone.separation) == (9, 10, None)


def test_a_patient_on_both_sides_is_counted_on_each():
    member = np.arange(40) % 2 == 0
    (everyone,) = attack(np.where(member, 0.0, 1.0), member, {}, [str(number // 2) for number in range(40)])
    assert (everyone.members, everyone.non_members, everyone.separation.auc) == (20, 20, 1.0)
