"""What of the processor can move the last bit of a number."""

import platform

import numpy as np


def processor() -> str:
    """The processor's kind, and the vector instructions that numpy finds on it, as one line."""
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    return " ".join([platform.machine(), *extensions["baseline"], *extensions.get("found", [])])
