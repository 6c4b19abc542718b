"""Accuracy by the user's evaluation function, which sees the artifact only through a predict function."""

import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING

from optkit import user_code
from optkit.artifact.findings import Accuracy
from optkit.artifact.tensors import Feed
from optkit.errors import FeedError, ModelError, OptkitError

if TYPE_CHECKING:
    import numpy as np

Infer = Callable[[Feed], "dict[str, np.ndarray]"]  # one inference, host to host, such as `runner.infer`


def evaluate(function: str, infer: Infer) -> Accuracy:
    """Call the user's function with the artifact's predict function.

    Args:
        function: `file.py:evaluate`; takes predict (feed -> output name to array) and returns a number; larger is better.
        infer: of an open runner.

    Raises:
        ModelError: the function raises, or returns anything but a finite number.
        FeedError: the function calls predict with a feed that does not fit the inputs.
    """
    from optkit.quantization.calibration.inputs import InputStatistics

    callee = user_code.load(function)
    if not callable(callee):
        raise ModelError(f"{function}: is a {type(callee).__name__}; expected a function that takes predict")
    seen = InputStatistics()

    def predict(feed: Feed) -> "dict[str, np.ndarray]":
        outputs = infer(feed)  # raises FeedError for an invalid feed
        seen.add(feed)
        return outputs

    try:
        with user_code.running(callee):
            value = callee(predict)
    except FeedError as e:
        raise FeedError(f"{function}: called predict with an invalid feed: {str(e).removeprefix('feed: ')}") from e
    except OptkitError:
        raise
    except (Exception, SystemExit) as e:
        raise ModelError(f"{function}: raised {user_code.describe(e)}") from e
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ModelError(f"{function}: returned {value!r}; expected a finite number, larger is better")
    return Accuracy(
        value=float(value), function=function.rpartition("/")[2].removeprefix(user_code.PREFIX), inputs=seen.moments()
    )
