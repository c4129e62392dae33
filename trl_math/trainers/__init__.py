"""Thin subclasses of TRL's trainers."""

from trl_math.trainers.sft_config import MathSFTConfig as MathSFTConfig
from trl_math.trainers.sft_trainer import MathSFTTrainer as MathSFTTrainer


__all__ = ["MathSFTConfig", "MathSFTTrainer"]
