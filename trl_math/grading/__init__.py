"""From text to verdict. So far: where an answer stands in a text."""

from trl_math.grading.extract import after_hashes as after_hashes
from trl_math.grading.extract import last_boxed as last_boxed


__all__ = ["after_hashes", "last_boxed"]
