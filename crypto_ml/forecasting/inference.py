"""A trained network at work: windows in, outputs back, through onnxruntime; tensorflow is never imported.

Belongs here: the session and what it must look like. Does not belong here: how a window is made or an output read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray

from crypto_ml.errors import Refused
from crypto_ml.forecasting.schema import FEATURES, WINDOW

if TYPE_CHECKING:
    import onnxruntime

BATCH: Final = 1024
"""Windows in one call: few enough to stay in a core's cache (240,000 a second against 180,000 with 8192)."""

THREADS: Final = 1
"""Cores for one call. Each step of the network is too short to share: with 2, and other programs at work, each waited
for the other and the same windows took twice the processor time."""


class Network:
    """A loaded network. One instance may be used by several threads at once.

    The result of a window is the same bits whatever stands beside it and however many there are: onnxruntime works
    row by row (tried with batches of 1 to 8192, in any order, on 1 and 2 threads), and a test holds it to that.
    """

    def __init__(self, session: "onnxruntime.InferenceSession", features: int) -> None:
        """Takes a session that `from_bytes` or `from_file` has made. Raises Refused where its shapes are not ours."""
        inputs, outputs = session.get_inputs(), session.get_outputs()
        ours = (
            len(inputs) == len(outputs) == 1
            and _fits(inputs[0].shape, (WINDOW, features))
            and _fits(outputs[0].shape, (1,))
            and inputs[0].type == outputs[0].type == "tensor(float)"
        )
        if not ours:
            found = "; ".join(
                f"{kind} {value.name} {value.type} {value.shape}"
                for kind, values in (("input", inputs), ("output", outputs))
                for value in values
            )
            raise Refused(
                f"The network takes or gives something else than float32 windows (n, {WINDOW}, {features}) and "
                f"outputs (n, 1): {found}; use a network that this project exported."
            )
        self._session = session
        self._features = features
        self._input: str = inputs[0].name
        self._output: str = outputs[0].name

    @classmethod
    def from_bytes(cls, content: bytes, *, threads: int = THREADS, features: int = len(FEATURES)) -> Self:
        """Loads an ONNX model held in memory; `threads` is the number of cores one call uses, `features` how many the
        network sees of a row.

        Raises Refused where the bytes are no ONNX model or the model is not of our shapes.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised; onnxruntime would print it as well
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # its exceptions share no base but Exception; for the same bytes each of them comes again
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise Refused(f"The network cannot be loaded, export it again: {first_line}") from error
        return cls(session, features)

    @classmethod
    def from_file(cls, path: Path, *, threads: int = THREADS) -> Self:
        """Loads an ONNX file, as `from_bytes`. Raises Refused also where there is no such file."""
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise Refused(f"There is no network at {path}; give the path of an exported .onnx file.") from error
        return cls.from_bytes(content, threads=threads)

    def predict(self, windows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The network's output for each of `windows` (n, 5, k) float32, as float64 (n,), in the units of its target.

        Raises Refused where the windows have another shape or dtype, or an output is not a finite number.
        """
        if windows.dtype != np.float32 or windows.shape[1:] != (WINDOW, self._features):
            raise Refused(
                f"Windows must be float32 (n, {WINDOW}, {self._features}), not {windows.dtype} {windows.shape}; "
                "make them with crypto_ml.forecasting.windows."
            )
        outputs = np.empty(len(windows), np.float64)
        for first in range(0, len(windows), BATCH):
            batch = np.ascontiguousarray(windows[first : first + BATCH])
            outputs[first : first + BATCH] = self._session.run([self._output], {self._input: batch})[0][:, 0]
        finite = np.isfinite(outputs)
        if not finite.all():
            raise Refused(
                f"The network gave no finite number for {len(finite) - int(finite.sum())} of {len(finite)} windows, "
                f"first for window {int(np.argmin(finite))}; look at that row's prices and at the network's weights."
            )
        return outputs


def _fits(shape: list[int | str | None], tail: tuple[int, ...]) -> bool:
    """Whether an ONNX shape is any number of rows of `tail`."""
    return len(shape) == len(tail) + 1 and not isinstance(shape[0], int) and tuple(shape[1:]) == tail
