import concurrent.futures
import logging
import os
import subprocess
import sys
import warnings

import pytest

from tensorflow_quantization.text.warn import each_warning_once, muted, warn_user, without_note


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


def test_each_warning_is_given_once_in_the_context():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            with each_warning_once():
                warn_user("one")
                with each_warning_once():
                    warn_user("one")
                    warn_user("two")
        warn_user("one")
    assert [str(w.message) for w in caught] == ["one", "two", "one", "two", "one"]


def test_muting_hides_no_warnings():
    with warnings.catch_warnings(record=True) as caught, muted("some", logging.CRITICAL):
        warnings.warn("seen", stacklevel=1)
    assert len(caught) == 1


def test_a_note_of_native_code_is_left_out_and_other_lines_are_shown(capfd):
    with without_note("INFO: Created"):
        os.write(2, b"INFO: Created a delegate.\nERROR: broken\n")
    os.write(2, b"INFO: Created another.\n")
    assert capfd.readouterr().err == "ERROR: broken\nINFO: Created another.\n"


@pytest.mark.slow
def test_notes_are_left_out_for_several_threads_and_without_stderr(capfd):
    def run(number):
        with without_note("INFO"):
            os.write(2, b"INFO\nline\n")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(16)))
    assert capfd.readouterr().err == "line\n" * 16
    code = "import os; os.close(2)\nfrom tensorflow_quantization.text.warn import without_note\n"
    code += "with without_note('INFO'): print('ran')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "ran\n"
