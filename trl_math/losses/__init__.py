"""Losses as pure functions of log-probabilities: element-wise, without configuration objects, reduced in one place."""

from trl_math.losses.coverage import coverage as coverage
from trl_math.losses.coverage import coverage_logp as coverage_logp
from trl_math.losses.coverage import coverage_nll as coverage_nll
from trl_math.losses.coverage import coverage_nll_and_weight as coverage_nll_and_weight
from trl_math.losses.coverage import coverage_weight as coverage_weight
from trl_math.losses.coverage_estimates import COVERAGE_ESTIMATORS as COVERAGE_ESTIMATORS
from trl_math.losses.difficulty import DIFFICULTY_SCHEDULES as DIFFICULTY_SCHEDULES
from trl_math.losses.difficulty import difficulty_levels as difficulty_levels
from trl_math.losses.difficulty import schedule_values as schedule_values
from trl_math.losses.preference import PREFERENCE_OBJECTIVES as PREFERENCE_OBJECTIVES
from trl_math.losses.preference import displacement as displacement
from trl_math.losses.reduce import reduce_sum as reduce_sum
from trl_math.losses.reduce import segment_ids as segment_ids
from trl_math.losses.reduce import segment_sum as segment_sum
from trl_math.losses.sequence import SEQUENCE_OBJECTIVES as SEQUENCE_OBJECTIVES
from trl_math.losses.sequence import cross_entropy_weight as cross_entropy_weight
from trl_math.losses.token import TOKEN_OBJECTIVES as TOKEN_OBJECTIVES


__all__ = [
    "COVERAGE_ESTIMATORS",
    "DIFFICULTY_SCHEDULES",
    "PREFERENCE_OBJECTIVES",
    "SEQUENCE_OBJECTIVES",
    "TOKEN_OBJECTIVES",
    "coverage",
    "coverage_logp",
    "coverage_nll",
    "coverage_nll_and_weight",
    "coverage_weight",
    "cross_entropy_weight",
    "difficulty_levels",
    "displacement",
    "reduce_sum",
    "schedule_values",
    "segment_ids",
    "segment_sum",
]
