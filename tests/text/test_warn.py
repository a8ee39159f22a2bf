import logging
import warnings

import pytest

from tensorflow_quantization.text.warn import muted, warn_user


def test_warning_points_at_the_line_that_calls():
    with pytest.warns(UserWarning, match="careful") as caught:
        warn_user("careful")
    assert caught[0].filename == __file__


def test_muted_logger_says_nothing_and_speaks_again_afterwards(caplog):
    logger = logging.getLogger("some.part")
    with pytest.raises(ValueError), muted("some", logging.CRITICAL):  # its level is that of its parts
        logger.error("unheard")
        raise ValueError
    logger.error("heard")
    assert [record.message for record in caplog.records] == ["heard"]


def test_muting_hides_no_warnings():
    with warnings.catch_warnings(record=True) as caught, muted("some", logging.CRITICAL):
        warnings.warn("seen", stacklevel=1)
    assert len(caught) == 1
