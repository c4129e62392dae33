"""From sources to rows that train: `datasets.Dataset` in, `datasets.Dataset` out, without torch."""

from trl_math.data.columns import SFT_FORMATS as SFT_FORMATS
from trl_math.data.columns import Table as Table
from trl_math.data.columns import sft_format as sft_format
from trl_math.data.problems import to_problems as to_problems
from trl_math.data.problems import without_problems as without_problems
from trl_math.data.prompts import PROMPT_STYLES as PROMPT_STYLES
from trl_math.data.prompts import PromptStyle as PromptStyle
from trl_math.data.prompts import template_hash as template_hash
from trl_math.data.prompts import to_sft as to_sft
from trl_math.data.prompts import without_gaps as without_gaps
from trl_math.data.sources import load_source as load_source
from trl_math.data.sources import source_stem as source_stem


__all__ = [
    "PROMPT_STYLES",
    "SFT_FORMATS",
    "PromptStyle",
    "Table",
    "load_source",
    "sft_format",
    "source_stem",
    "template_hash",
    "to_problems",
    "to_sft",
    "without_gaps",
    "without_problems",
]
