import logging
import warnings

import pytest

from dpmed.data.decode.quiet import ignore_logs, ignore_warnings


def warn(module):
    warnings.warn_explicit("secret", UserWarning, "x.py", 1, module=module)


def test_warnings_of_the_named_modules_and_of_no_others_are_dropped():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ignore_warnings(["pydicom", "dpmed.data.decode"])
        for module in ("pydicom", "pydicom.values", "dpmed.data.decode.dicom"):
            warn(module)
        for module in ("pydicomx", "dpmed.data", "dpmedxdata.decode"):
            with pytest.raises(UserWarning):
                warn(module)


def test_asking_again_adds_no_filter_unless_it_was_taken_away():
    with warnings.catch_warnings():
        ignore_warnings(["some.module"])
        count = len(warnings.filters)
        ignore_warnings(["some.module"])
        assert len(warnings.filters) == count
        warnings.resetwarnings()
        ignore_warnings(["some.module"])
        assert len(warnings.filters) == 1


def test_records_of_the_named_loggers_are_dropped(caplog):
    ignore_logs(["some.logger"])
    logging.getLogger("some.logger").critical("secret")
    logging.getLogger("another.logger").critical("heard")
    assert caplog.text.count("heard") == 1 and "secret" not in caplog.text
