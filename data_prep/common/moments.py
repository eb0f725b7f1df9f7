"""Standard deviations of data whose sums were added up piece by piece."""

import math

from stcn_tf.support.errors import UserError


def std_of(mean_square: float, mean: float, what: str) -> float:
    """The standard deviation from both moments; `what` is normalised, for the message.

    Raises:
        UserError: it is 0 or undefined.
    """
    variance = mean_square - mean**2
    # Written so that NaN is refused too.
    if not variance > 1e-12 * mean_square:
        raise UserError(
            f"the train split cannot be normalised: its {what} do not vary "
            f"(mean {mean:g}, variance {variance:g})"
        )
    return math.sqrt(variance)
