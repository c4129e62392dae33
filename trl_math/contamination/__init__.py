"""Whether what is tested was trained on: how a leak is found.

`texts` reads the two sides, `detectors` has every way to compare them by its name, and `matches` says what each
returns. Nothing here imports torch; a detector that needs a model loads it when it is asked. Processes that search
import what compares texts, and not what reads them.
"""

from trl_math.contamination.matches import Detector as Detector
from trl_math.contamination.matches import Match as Match


__all__ = ["Detector", "Match"]
