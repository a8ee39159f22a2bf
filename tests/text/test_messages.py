import pytest

from tensorflow_quantization.text.messages import (
    did_you_mean,
    error_in_one_line,
    must_be_one_of,
    plain_errors,
    what_is_wrong,
)

FRAMED = "Exception encountered when calling Dense.call().\n\n\x1b[1mwrong shape\x1b[0m\n\nArguments: ..."


def test_nothing_close_gives_no_hint():
    assert did_you_mean("xyz", ["conv", "dense"]) == ""
    assert did_you_mean("conv_1", ["conv_1a", "conv_1b", "dense"]).startswith(" Did you mean 'conv_1")


def test_choice_of_names():
    assert must_be_one_of("mode", {"full": 1, "partial": 2}, None) == "mode must be one of 'full', 'partial', got None."
    assert must_be_one_of("mode", ["full", "partial"], "ful", besides="a Mode") == (
        "mode must be one of 'full', 'partial', or a Mode, got 'ful'. Did you mean 'full'?"
    )


def test_what_is_wrong_leaves_out_the_frame_and_the_colours():
    error = ValueError(FRAMED)
    assert what_is_wrong(error) == "wrong shape"
    assert error_in_one_line(error) == "ValueError: wrong shape"
    assert what_is_wrong(KeyError()) == "KeyError"


class OfTwoError(Exception):
    def __init__(self, message, node):
        super().__init__(message)


@pytest.mark.parametrize(
    ("error", "raised"), [(KeyError(FRAMED), KeyError), (OfTwoError(FRAMED, "node"), RuntimeError)]
)
def test_a_plain_error_keeps_its_class_where_the_class_takes_a_message(error, raised):
    with pytest.raises(raised) as caught, plain_errors():
        raise error
    assert caught.value.args == ("Dense.call(): wrong shape",)
    assert caught.value.__cause__ is error


def test_other_errors_are_raised_unchanged():
    error = ValueError("wrong")
    with pytest.raises(ValueError, match=r"^wrong$") as caught, plain_errors():
        raise error
    assert caught.value is error
