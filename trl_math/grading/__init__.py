"""From text to verdict: where the answer stands, what it says, and whether it is the gold answer.

`extract` finds boxes, hashes and phrases, `locate` and `choices` decide which of them is the answer, `normalise` and
`read` make it a typed value, `compare` compares part by part. Numbers and what differs at sight are decided by `fast`;
the rest by `slow` (math-verify), in the worker processes of `pool`. Importing this costs neither SymPy nor torch.
"""

from trl_math.grading.equivalence import cluster as cluster
from trl_math.grading.equivalence import cluster_all as cluster_all
from trl_math.grading.extract import after_hashes as after_hashes
from trl_math.grading.extract import last_boxed as last_boxed
from trl_math.grading.grader import Grader as Grader
from trl_math.grading.grader import grade as grade
from trl_math.grading.grader import grade_all as grade_all
from trl_math.grading.results import REASONS as REASONS
from trl_math.grading.results import Grade as Grade
from trl_math.grading.results import Graded as Graded
from trl_math.grading.results import Report as Report


__all__ = [
    "REASONS",
    "Grade",
    "Graded",
    "Grader",
    "Report",
    "after_hashes",
    "cluster",
    "cluster_all",
    "grade",
    "grade_all",
    "last_boxed",
]
