from tensorflow_quantization.text.messages import did_you_mean, error_in_one_line, must_be_one_of, what_is_wrong


def test_nothing_close_gives_no_hint():
    assert did_you_mean("xyz", ["conv", "dense"]) == ""
    assert did_you_mean("conv_1", ["conv_1a", "conv_1b", "dense"]).startswith(" Did you mean 'conv_1")


def test_choice_of_names():
    assert must_be_one_of("mode", {"full": 1, "partial": 2}, None) == "mode must be one of 'full', 'partial', got None."
    assert must_be_one_of("mode", ["full", "partial"], "ful", besides="a Mode") == (
        "mode must be one of 'full', 'partial', or a Mode, got 'ful'. Did you mean 'full'?"
    )


def test_what_is_wrong_leaves_out_the_frame_and_the_colours():
    error = ValueError(
        "Exception encountered when calling Dense.call().\n\n\x1b[1mwrong shape\x1b[0m\n\nArguments: ..."
    )
    assert what_is_wrong(error) == "wrong shape"
    assert error_in_one_line(error) == "ValueError: wrong shape"
    assert what_is_wrong(KeyError()) == "KeyError"
