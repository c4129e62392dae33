"""Benchmarks, and numbers that one can believe: each with its n and its interval.

What is imported here computes: NumPy only, no torch, no files. `benchmarks` knows the sets of problems; `units`,
`run`, `results` and `teacher_forced` make an evaluation in a folder; `compare_runs` reads two.
"""

from trl_math.evaluation.calibration import Bin as Bin
from trl_math.evaluation.calibration import Calibration as Calibration
from trl_math.evaluation.calibration import calibration as calibration
from trl_math.evaluation.calibration import majority_confidence as majority_confidence
from trl_math.evaluation.coverage import coverage_at_k as coverage_at_k
from trl_math.evaluation.coverage import coverage_estimates as coverage_estimates
from trl_math.evaluation.intervals import Estimate as Estimate
from trl_math.evaluation.intervals import mean_estimate as mean_estimate
from trl_math.evaluation.intervals import mean_estimates as mean_estimates
from trl_math.evaluation.intervals import proportion as proportion
from trl_math.evaluation.intervals import wilson as wilson
from trl_math.evaluation.majority import MajorityAtK as MajorityAtK
from trl_math.evaluation.majority import majority_at_k as majority_at_k
from trl_math.evaluation.paired import Comparison as Comparison
from trl_math.evaluation.paired import PValue as PValue
from trl_math.evaluation.paired import compare as compare
from trl_math.evaluation.paired import difference_estimate as difference_estimate
from trl_math.evaluation.pass_at_k import pass_at_k as pass_at_k
from trl_math.evaluation.posterior import JEFFREYS as JEFFREYS
from trl_math.evaluation.posterior import Prior as Prior
from trl_math.evaluation.posterior import fit_prior as fit_prior
from trl_math.evaluation.posterior import pass_rates as pass_rates
from trl_math.evaluation.posterior import posterior_interval as posterior_interval
from trl_math.evaluation.posterior import posterior_mean as posterior_mean
from trl_math.evaluation.posterior import predictive as predictive
from trl_math.evaluation.posterior import probability_at_least as probability_at_least
from trl_math.evaluation.sequential import RULES as RULES
from trl_math.evaluation.sequential import AgreementRule as AgreementRule
from trl_math.evaluation.sequential import FixedRule as FixedRule
from trl_math.evaluation.sequential import LevelRule as LevelRule
from trl_math.evaluation.sequential import ThresholdRule as ThresholdRule
from trl_math.evaluation.sequential import WidthRule as WidthRule
from trl_math.evaluation.summary import Summary as Summary
from trl_math.evaluation.summary import Tally as Tally
from trl_math.evaluation.summary import problem_metrics as problem_metrics
from trl_math.evaluation.summary import summarise as summarise
from trl_math.evaluation.summary import tally as tally


__all__ = [
    "JEFFREYS",
    "RULES",
    "AgreementRule",
    "Bin",
    "Calibration",
    "Comparison",
    "Estimate",
    "FixedRule",
    "LevelRule",
    "MajorityAtK",
    "PValue",
    "Prior",
    "Summary",
    "Tally",
    "ThresholdRule",
    "WidthRule",
    "calibration",
    "compare",
    "coverage_at_k",
    "coverage_estimates",
    "difference_estimate",
    "fit_prior",
    "majority_at_k",
    "majority_confidence",
    "mean_estimate",
    "mean_estimates",
    "pass_at_k",
    "pass_rates",
    "posterior_interval",
    "posterior_mean",
    "predictive",
    "probability_at_least",
    "problem_metrics",
    "proportion",
    "summarise",
    "tally",
    "wilson",
]
