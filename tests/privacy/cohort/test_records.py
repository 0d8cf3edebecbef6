"""What is known of a run can be shown without naming anybody."""

from tests.privacy.cohort.test_file import entry


def test_a_run_about_to_be_entered_shows_no_names():
    assert "Anna Example" not in repr(entry("a", ["Anna Example"]))
