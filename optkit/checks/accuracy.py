"""Accuracy by the user's own function, which sees nothing of the artifact but a predict function."""

import math
import numbers
from typing import TYPE_CHECKING

from optkit import user_code
from optkit.artifact.findings import Accuracy
from optkit.artifact.tensors import Feed
from optkit.errors import FeedError, ModelError, OptkitError
from optkit.runners import Runner

if TYPE_CHECKING:
    import numpy as np


def evaluate(function: str, runner: Runner) -> Accuracy:
    """Call the user's function with the artifact's predict function.

    Args:
        function: `file.py:evaluate`; takes predict (feed -> output name to array) and returns a number, larger is better.
        runner: open.

    Raises:
        ModelError: the function raises, or returns something else than a finite number.
        FeedError: it calls predict with what does not fit.
    """
    from optkit.quantization.calibration.inputs import InputStatistics

    callee = user_code.load(function)
    if not callable(callee):
        raise ModelError(f"{function}: is a {type(callee).__name__}; expected a function of predict")
    seen = InputStatistics()

    def predict(feed: Feed) -> "dict[str, np.ndarray]":
        outputs = runner.infer(feed)  # which refuses what is no feed
        seen.add(feed)
        return outputs

    try:
        with user_code.running(callee):
            value = callee(predict)
    except FeedError as e:
        raise FeedError(f"{function}: called predict with what is no feed: {str(e).removeprefix('feed: ')}") from e
    except OptkitError:
        raise
    except (Exception, SystemExit) as e:
        raise ModelError(f"{function}: raised {user_code.describe(e)}") from e
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ModelError(f"{function}: returned {value!r}; expected a finite number, larger is better")
    return Accuracy(
        value=float(value), function=function.rpartition("/")[2].removeprefix(user_code.PREFIX), inputs=seen.moments()
    )
