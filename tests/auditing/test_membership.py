import numpy as np

from dpmed.auditing.membership import attack
from dpmed.auditing.scores import separate


def test_groups_are_attacked_by_themselves():
    generator = np.random.default_rng(0)
    member = generator.random(2000) < 0.5
    sex = np.where(generator.random(2000) < 0.3, "f", "")
    # Only one group is remembered.
    losses = generator.standard_normal(2000) - 2.0 * (member & (sex == "f"))
    rare = np.where(np.arange(2000) < 8, "rare", "common")
    found = attack(losses, member, {"sex": sex, "age": np.arange(2000), "site": np.zeros(2000), "rare": rare})
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
