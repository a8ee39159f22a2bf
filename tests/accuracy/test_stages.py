import keras
import numpy as np
import pytest
from accuracy_networks import depthwise, images, quantized

from tensorflow_quantization.accuracy.stages import Stages


@pytest.mark.parametrize("verbose", [0, 1])
def test_a_stage_that_gains_nothing_is_undone(capsys, verbose):
    model, x = depthwise(), images(16)
    made = quantized(model)
    stages = Stages(model, [x], verbose)
    stages.start(made, "first")
    before = made.get_weights()
    assert stages.keep_gain(made, before, "the same")
    made.set_weights([0 * weight for weight in before])
    assert not stages.keep_gain(made, before, "zeros")
    assert all(np.array_equal(a, b) for a, b in zip(before, made.get_weights(), strict=True))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * verbose
    if verbose:
        assert lines[0].endswith("dB  first") and lines[2].endswith("dB  zeros: undone, it is no gain")


def test_of_classes_the_scores_that_they_were_found_in_are_judged(capsys):
    model, x = depthwise(), images(16)
    classes = keras.Model(model.inputs, keras.ops.argmax(model.outputs[0], axis=-1))
    lines = []
    for one in (model, classes):
        Stages(one, [x], 1).start(quantized(one), "first")
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1] and "inf" not in lines[0]
