"""`warn_of_huge_values`: warns of a tensor that holds the huge numbers of a mask beside other values.

A mask of 0 and -1e9 that is an input of the model, and is added to scores, would make one step of the range millions of
times as wide as all scores: they all become one integer, without any error. Masks that the model itself computes stay
in float, see `model.mask_numbers`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorflow_quantization.calibration.histogram import BINS, Histogram
from tensorflow_quantization.calibration.observation import Observed
from tensorflow_quantization.model.mask_numbers import HUGE
from tensorflow_quantization.text.warn import warn_user

#: Without a histogram, values between the ends are unknown: the ends alone tell of a mask if they differ by more.
_LOST = 1e-6


def warn_of_huge_values(observed: Sequence[Observed]) -> None:
    """Warns of the first tensor whose calibrated range comes from a mask, and loses all other values.

    Args:
        observed: the quantizers after all batches. Those whose estimator keeps no ends are not judged.
    """
    for one in observed:
        if (huge := _mask_number(one)) is not None:
            warn_user(
                f"{one.path!r} got values of about {huge:.3g}, and others that are so small that all of them become "
                "one integer. If these are masked scores, compute the mask within the model from zeros and ones: "
                "`scores + (1 - mask) * -1e9` and `where(mask, scores, -1e9)` stay in float. Or mask by a number a "
                "little below the least score, such as -30. If these are features of different units, normalize them."
            )
            return


def _mask_number(one: Observed) -> float | None:
    """The greatest value of a tensor by magnitude, if it is huge, and all other values are lost beside it."""
    low, high = (getattr(one.estimator, end, 0.0) for end in ("low", "high"))
    huge, other = (low, high) if -low > high else (high, low)
    scheme = one.quantizer.scheme
    if abs(huge) < HUGE or scheme.floating or scheme.bits > 8:
        return None
    if isinstance(one.estimator, Histogram):
        # Next to zero there are values, and not only zeros, and then none up to an eighth of the limit.
        counts, far = one.estimator.counts, BINS // 8
        near = counts[BINS - 1 : BINS + 1].sum()
        between = counts[BINS - far : BINS + far].sum() - near
        return huge if other and near and not between else None
    return huge if 0 < abs(other) < _LOST * abs(huge) else None
