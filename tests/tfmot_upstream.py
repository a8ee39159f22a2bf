"""TFMOT's tests of its public quantization names, and the tests here that check the same behaviour.

The tests are those of github.com/tensorflow/model-optimization at commit 6fbc2ce (May 2026), in
tensorflow_model_optimization/python/core/quantization/keras. A case is one set of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Upstream:
    """One test of TFMOT.

    Attributes:
        name: the test.
        ours: the tests here, as "file::test" in tests/tfmot; empty: none passes in all cases.
        cases: the number of cases.
        passing: the number of cases that pass here; `None` (default): all if `ours`, else none.
        why: why not all cases pass.
    """

    name: str
    ours: tuple[str, ...] = ()
    cases: int = 1
    passing: int | None = None
    why: str = ""

    @property
    def passes(self) -> int:
        return self.passing if self.passing is not None else (self.cases if self.ours else 0)


def _passes(name: str, *ours: str, cases: int = 1) -> Upstream:
    return Upstream(name, ours, cases)


_APPLY, _ANNOTATE, _EXPORT = "test_quantize.py::test_", "test_annotate.py::test_", "test_export.py::test_"
_WRAPPER, _REGISTRY, _GUIDE = "test_wrapper.py::test_", "test_default_8bit.py::test_", "test_guide.py::test_"

#: By file of TFMOT.
COUNTED: dict[str, list[Upstream]] = {
    "quantize_test.py": [
        _passes("testQuantizeModel_Passes", f"{_APPLY}model_with_dropout_is_quantized"),
        _passes("testQuantizeLayer_Fails", f"{_APPLY}only_a_sequential_or_functional_model_is_quantized"),
        _passes("testQuantizeAnnotateLayer", f"{_ANNOTATE}annotated_layer_computes_the_same"),
        _passes("testQuantizeAnnotateSequentialFirstLayer_IsBuilt", f"{_ANNOTATE}first_layer_sets_the_input_shape"),
        _passes("testQuantizeAnnotateLayer_FailsWithModel", f"{_ANNOTATE}a_model_is_no_layer"),
        _passes("testQuantizeAnnotateModel", f"{_ANNOTATE}every_layer_of_a_model_is_annotated_and_computes_the_same"),
        _passes("testQuantizeAnnotateModel_HasAnnotatedLayers", f"{_ANNOTATE}annotated_layer_is_not_annotated_again"),
        _passes("testQuantizeAnnotateModel_FailsWithLayer", f"{_ANNOTATE}what_is_no_model_is_refused"),
        _passes("testQuantizeAnnotateModel_PassesWithCustomLayer", f"{_ANNOTATE}model_of_custom_layers_is_annotated"),
        _passes(
            "testQuantizeAnnotateModel_RemovesOptimizer",
            f"{_ANNOTATE}annotated_model_is_not_compiled_and_shares_nothing",
        ),
        _passes("testQuantizeAnnotateModel_FailsWithSubclassedModel", f"{_ANNOTATE}subclassed_model_is_refused"),
        Upstream("testQuantizeAnnotateModel_FailsWithNestedModels", why="layers of nested models are quantized here"),
        _passes("testQuantizeAnnotateModel_SkipsLambda", f"{_ANNOTATE}lambda_stays_as_it_is"),
        _passes("testRaisesErrorIfNotKerasModel", f"{_APPLY}only_a_sequential_or_functional_model_is_quantized"),
        _passes("testRaisesErrorIfKerasSubclassedModel", f"{_APPLY}only_a_sequential_or_functional_model_is_quantized"),
        _passes("testRaisesErrorNoAnnotatedLayers_Sequential", f"{_APPLY}no_annotated_layer_is_an_error"),
        _passes("testRaisesErrorNoAnnotatedLayers_Functional", f"{_APPLY}no_annotated_layer_is_an_error"),
        _passes("testRaisesErrorModelNotBuilt", f"{_APPLY}model_that_is_not_built_is_an_error"),
        _passes("testRaisesErrorNotInstanceOfQuantizeConfig", f"{_ANNOTATE}config_of_another_class_is_refused"),
        Upstream(
            "testQuantizeCustomLayerWithoutQuantizeScope_RaisesError",
            why="`quantize_apply` needs no `quantize_scope` here; only loading does",
        ),
        _passes(
            "testQuantize_RaisesErrorIfNoQuantizeConfig",
            f"{_APPLY}custom_layer_without_config_is_an_error_that_names_it",
        ),
        _passes("testQuantize_UsesBuiltinQuantizeConfig", f"{_APPLY}layer_without_config_has_default_quantizers"),
        _passes("testQuantize_UsesQuantizeConfigFromUser_NoBuiltIn", f"{_APPLY}config_of_the_user_counts"),
        _passes("testQuantize_PreferenceToUserSpecifiedQuantizeConfig", f"{_APPLY}config_of_the_user_counts"),
        _passes(
            "testAppliesQuantizationToAnnotatedModel_Sequential",
            f"{_APPLY}annotated_layers_are_quantized_with_copies_of_their_weights",
        ),
        _passes(
            "testAppliesQuantizationToInputsToAnnotatedModel_Sequential",
            f"{_APPLY}input_of_an_annotated_layer_is_quantized",
        ),
        _passes("testAppliesQuantizationToAnnotatedModel_PreservesBuiltState", f"{_APPLY}quantized_model_is_built"),
        _passes(
            "testAppliesQuantizationToAnnotatedModel_Functional",
            f"{_APPLY}annotated_layers_are_quantized_with_copies_of_their_weights",
        ),
        _passes(
            "testAppliesQuantizationToInputsToAnnotatedModel_Functional",
            f"{_APPLY}input_of_an_annotated_layer_is_quantized",
        ),
        _passes(
            "testDoesNotQuantizeInputLayer_OutboundLayerNotQuantized",
            f"{_APPLY}model_input_is_quantized_only_for_an_annotated_layer",
        ),
        _passes(
            "testQuantizesInputLayer_OutboundLayerIsQuantized",
            f"{_APPLY}model_input_is_quantized_only_for_an_annotated_layer",
        ),
        _passes("testQuantizeApply_RemovesOptimizer", f"{_APPLY}quantized_model_is_not_compiled"),
        _passes(
            "testQuantizeApply_RunsWhenNestedModelNotAnnotated",
            f"{_APPLY}nested_model_without_annotation_stays_float",
        ),
        _passes("testQuantizeApply_KeepTrainableWeightOrder", f"{_APPLY}order_of_trainable_weights_stays"),
        _passes(
            "testFixInputOutputRangeModel",
            "test_ranges.py::test_ranges_of_input_and_output_are_fixed",
            cases=12,
        ),
        _passes(
            "testFixInputOutputRangeModel_PreservesBuiltState",
            "test_ranges.py::test_fixed_ranges_stay_in_training_and_in_the_file",
        ),
    ],
    "quantize_annotate_test.py": [
        _passes("testAnnotateLayerCallPassesTraningBoolean", f"{_ANNOTATE}training_reaches_the_layer"),
        _passes(
            "testAnnotatesKerasLayer",
            f"{_ANNOTATE}annotation_keeps_layer_and_config",
            f"{_ANNOTATE}annotated_layer_computes_the_same",
        ),
        _passes("testSerializationQuantizeAnnotate", f"{_ANNOTATE}config_of_the_annotation_is_restored"),
        _passes("testQuantizeAnnotate_FailsWithModel", f"{_ANNOTATE}a_model_is_no_layer"),
    ],
    "quantize_integration_test.py": [
        _passes(
            "testCustomWeightQuantizers_Run",
            f"{_GUIDE}model_with_a_config_trains_and_loads",
            f"{_APPLY}config_of_the_guide_is_used_once_for_each_layer",
            cases=2,
        ),
        _passes("testSerialization_KerasModel", f"{_GUIDE}checkpoint_and_deserialize"),
        _passes("testSerialization_KerasCheckpoint", f"{_APPLY}weights_are_saved_and_loaded"),
    ],
    "quantize_functional_test.py": [
        _passes("testQuantizesMnist", f"{_EXPORT}accuracy_stays_from_float_to_file"),
        Upstream(
            "testQuantizeSingleLayer_ProducesFullIntegerModel_TF2",
            (f"{_EXPORT}single_layer_has_float_tensors_at_the_ends_only",),
            cases=23,
            passing=22,
            why="GlobalAveragePooling3D computes in float here",
        ),
    ],
    "quantize_models_test.py": [
        _passes("testModelEndToEnd", f"{_EXPORT}network_of_keras_trains_and_is_written", cases=3),
        _passes("testModelEndToEndCustomNamePrefix", f"{_APPLY}prefix_names_the_wrappers", cases=6),
    ],
    "quantizers_test.py": [
        _passes("testQuantizer", "test_quantizers.py::test_quantizer_follows_its_range_and_rounds_to_it", cases=4),
        _passes("testSerialization", "test_quantizers.py::test_quantizer_is_restored_from_its_config", cases=4),
    ],
    "quantize_wrapper_test.py": [
        Upstream(
            "testQuantizesWeightsInLayer",
            why="expects the initial range of ±6 for weights; here it comes from the weight, at inference, too",
        ),
        Upstream("testQuantizesWeights_KerasLayers", cases=2, why="the same"),
        _passes("testQuantizesOutputsFromLayer", f"{_WRAPPER}output_of_a_layer_is_quantized_in_the_initial_range"),
        _passes("testSerializationQuantizeWrapper", f"{_WRAPPER}config_of_the_wrapper_is_restored"),
        _passes("testQuantizeWrapper_FailsWithModel", f"{_WRAPPER}model_or_other_config_is_refused"),
    ],
    "default_8bit/quantize_numerical_test.py": [
        _passes("testModelEndToEnd", f"{_EXPORT}trained_network_and_its_file_agree", cases=12),
    ],
    "default_8bit/default_8bit_quantize_registry_test.py (registry)": [
        _passes("testSupports_KerasLayer", f"{_REGISTRY}layers_with_an_integer_kernel_are_supported"),
        _passes("testDoesNotSupport_CustomLayer", f"{_REGISTRY}custom_layers_are_not_supported"),
        _passes(
            "testGetsPerTensorIfPerAxisDisabled",
            f"{_REGISTRY}weights_are_per_axis_unless_that_is_disabled",
            cases=2,
        ),
        _passes("testRaisesError_UnsupportedLayer", f"{_REGISTRY}custom_layers_are_not_supported"),
        Upstream(
            "testReturnsConfig_KerasLayer",
            why="sets `layer.kernel`, which is read-only in Keras 3; the quantizers are as expected",
        ),
        _passes(
            "testReturnsConfig_LayerWithResultQuantizer",
            f"{_REGISTRY}config_of_a_layer_without_weights_quantizes_its_output",
        ),
        _passes(
            "testReturnsActivationConfig_Activation",
            f"{_REGISTRY}config_of_a_layer_without_weights_quantizes_its_output",
        ),
    ],
}

#: Not counted: what they test, and why.
NOT_COUNTED = {
    "quantize_integration_test.py: testSerialization_SavedModel, testSerialization_TFCheckpoint": (
        "formats that Keras 3 does not have"
    ),
    "quantize_functional_test.py: testQuantizeSingleLayer_ProducesFullIntegerModel_TF1": "TensorFlow 1",
    "quantizers_test.py: NoQuantizer": "the class is private",
    "quantize_aware_activation_test.py, quantize_layer_test.py, quant_ops_test.py": "private classes and functions",
    "default_8bit_quantize_registry_test.py: its other classes": (
        "private configs, which set attributes that are read-only in Keras 3; tests of recurrent layers are skipped"
    ),
    "default_8bit_transforms_test.py, graph_transformations/*_test.py": (
        "transforms of the configs of Keras 2 models; a target places the quantizers here"
    ),
    "default_8bit_quantizers_test.py": "a private class",
    "experimental/default_n_bit/*_test.py": "the same tests once more, for a registry that is not here",
    "collab_opts/*_test.py": "pruning and clustering are not part of this package",
}


def figures() -> tuple[int, int, int, int]:
    """Returns how many tests pass in all their cases, how many tests, how many cases pass, how many cases."""
    tests = [test for group in COUNTED.values() for test in group]
    return (
        sum(test.passes == test.cases for test in tests),
        len(tests),
        sum(test.passes for test in tests),
        sum(test.cases for test in tests),
    )


def table() -> str:
    """Returns the table of the page `docs/tfmot.md`: each test of TFMOT, and what checks it here or why none does."""
    rows = ["| TFMOT | here, in `tests/tfmot/` |", "|---|---|"]
    for file, tests in COUNTED.items():
        rows.append(f"| **{file}** | |")
        for test in tests:
            cases = f" ({test.passes} of {test.cases} cases)" if test.cases > 1 else ""
            found = ", ".join(f"`{name}`" for name in test.ours)
            rows.append(f"| `{test.name}`{cases} | {'; '.join(filter(None, (found, test.why and f'*{test.why}*')))} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
    print("{} of {} tests, {} of {} cases".format(*figures()))
