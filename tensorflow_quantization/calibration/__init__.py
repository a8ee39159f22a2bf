"""Calibration: `calibrate`, and one file for each range estimator."""

from tensorflow_quantization.calibration.calibrate import ESTIMATORS, calibrate
from tensorflow_quantization.calibration.entropy import Entropy
from tensorflow_quantization.calibration.estimator import MergeableEstimator, RangeEstimator
from tensorflow_quantization.calibration.min_max import Max, MinMax
from tensorflow_quantization.calibration.mse import MSE
from tensorflow_quantization.calibration.percentile import Percentile
from tensorflow_quantization.calibration.results import load_calibration, merge_calibrations, save_calibration

__all__ = [
    "ESTIMATORS",
    "MSE",
    "Entropy",
    "Max",
    "MergeableEstimator",
    "MinMax",
    "Percentile",
    "RangeEstimator",
    "calibrate",
    "load_calibration",
    "merge_calibrations",
    "save_calibration",
]
