import pytest

from dpmed.errors import InputError
from tests.attacks.asking import asked


def test_any_change_of_settings_is_another_attack(tmp_path):
    for name, content in (("a", b"1"), ("b", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.eqx").write_bytes(content)
    changes = [
        {},
        {"attack": "imprint"},
        {"epsilons": (8.0,)},
        {"epsilons": (8.0, None)},
        {"batches": 2},
        {"rows": 40},
        {"steps": "one"},
        {"accountant": "rdp"},
        {"overrides": ["training.seed=7"]},
        {"weights": tmp_path / "a"},
        {"weights": tmp_path / "b"},
    ]
    assert len({asked(**change).digest for change in changes}) == len(changes)
    assert asked(rows=40).digest == asked(rows=40).digest
    # Weights are told apart by their content, not by their path.
    (tmp_path / "a" / "model.eqx").write_bytes(b"2")
    assert asked(weights=tmp_path / "a").digest == asked(weights=tmp_path / "b").digest


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"epsilons": ()}, "epsilons"),
        ({"name": "quickstart_nonprivate", "epsilons": (8.0, None)}, "privacy"),
        ({"name": "quickstart_nonprivate", "attack": "prior-aware", "epsilons": (8.0,)}, "privacy"),
    ],
)
def test_settings_without_meaning_are_refused_by_name(change, where):
    with pytest.raises(InputError) as refused:
        asked(**change)
    assert refused.value.where == where


def test_weights_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such folder or file"):
        asked(weights=tmp_path / "nowhere")
