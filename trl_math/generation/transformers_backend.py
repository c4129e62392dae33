"""Samples from `generate` of transformers: no engine to install, any model that it can load, any device.

Rows are padded on the left and drawn in batches. What a row becomes does not depend on its batch: random numbers are
the row's own (`row_sampling`), and so are its end and its number of tokens.

An encoder-decoder model is asked the same way, but for what `encoder_decoder` says: its encoder reads the prompt.

`generate` fills every setting that it is not given from the model's generation config, where checkpoints keep a
temperature, a top_k or a repetition penalty of their taste. Here the model has an empty one while it samples.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from peft import PeftModel
from torch.distributed.tensor import DTensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.integrations import is_deepspeed_zero3_enabled

from trl_math.errors import UsageError
from trl_math.generation.backend import Backend, Request, check_prompts, too_long
from trl_math.generation.choices import check_choices, choice_ids, draw_choice
from trl_math.generation.encoder_decoder import decoder_start_id, encoder_inputs, has_encoder
from trl_math.generation.end_tokens import end_token_ids
from trl_math.generation.model_logprobs import completion_logprobs, next_logprobs
from trl_math.generation.row_sampling import RowEnds, finished_tokens, sampling_processors
from trl_math.models import resolve_model
from trl_math.records import Completion, Sampling


logger = logging.getLogger(__name__)


class TransformersBackend(Backend):
    """Draws from a model in memory, which may be in training between two calls: it is left as it was found."""

    def __init__(
        self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 32
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}.")
        config = model.config.get_text_config()
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.context_length = getattr(config, "max_position_embeddings", None)
        # Rotary positions have no last one; a table of positions does, and a row that is done still goes on counting.
        self._can_pass_context = getattr(config, "rope_parameters", None) is not None

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        *,
        revision: str | None = None,
        adapter: str | Path | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        tokenizer: PreTrainedTokenizerBase | str | None = None,
        batch_size: int = 32,
        trust_remote_code: bool = False,
    ) -> Self:
        """Load a model (hub name, folder, `embedded:`), with a LoRA adapter's folder on top if one is given.

        `device`: the accelerator if there is one, else the CPU. `tokenizer`: the adapter's if it has its own, since
        training may have changed the chat template, else the model's.
        """
        folder = resolve_model(model_name_or_path)
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        try:
            config = AutoConfig.from_pretrained(folder, **options)
            kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model = kind.from_pretrained(folder, dtype=dtype, **options)
            if not isinstance(tokenizer, PreTrainedTokenizerBase):
                own = _tokenizer_folder(adapter) if tokenizer is None else tokenizer
                tokenizer = AutoTokenizer.from_pretrained(own or folder, **({} if own else options))
        except (OSError, ValueError) as error:
            raise UsageError(f"{model_name_or_path!r} cannot be loaded: {' '.join(str(error).split())}") from error
        if adapter is not None:
            model = _with_adapter(model, Path(adapter))
        model.to(device or torch.accelerator.current_accelerator() or "cpu")
        return cls(model, tokenizer, batch_size=batch_size)

    def stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield (index, sample) batch after batch, the longest prompts first: what does not fit shows at once."""
        check_prompts([request.prompt_ids for request in requests])
        check_whole(self.model)
        check_choices(self.tokenizer, sampling)
        return self._stream(requests, sampling)

    def fits(self, prompt_ids: Sequence[int]) -> bool:
        """Whether the prompt leaves room for at least one token; an encoder has the whole context for it."""
        if has_encoder(self.model) and self.context_length is not None:
            return len(prompt_ids) <= self.context_length
        return super().fits(prompt_ids)

    def max_tokens(self, prompt_ids: Sequence[int], sampling: Sampling) -> int:
        """Return how many tokens a sample of this prompt may have; a decoder of its own has them all."""
        return super().max_tokens(() if has_encoder(self.model) else prompt_ids, sampling)

    def facts(self) -> dict[str, Any]:
        """Return what should be written beside the samples."""
        return {
            "engine": "transformers",
            "version": transformers.__version__,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "batch_size": self.batch_size,
        }

    def close(self) -> None:
        """Let go of the model, which lives on where someone else holds it."""
        del self.model
        _free_cache()

    def _stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        waiting = sorted(range(len(requests)), key=lambda index: -len(requests[index].prompt_ids))
        limits = [self.max_tokens(request.prompt_ids, sampling) for request in requests]
        while waiting:
            batch = self._next_batch(waiting, limits)
            rows = [(requests[index], limits[index]) for index in batch]
            try:
                completions = self._draw(rows, sampling)
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise UsageError(
                        f"One sample of {len(rows[0][0].prompt_ids)} prompt tokens and up to {rows[0][1]} new ones "
                        "does not fit into memory: lower max_tokens, load the model in bfloat16, or use a vllm engine."
                    ) from error
                completions = []
            if completions:
                yield from zip(batch, completions, strict=True)
                del waiting[: len(batch)]
            else:  # outside of `except`, which would hold on to what the failed batch allocated
                self._halve(len(batch))

    def _next_batch(self, waiting: Sequence[int], limits: Sequence[int]) -> Sequence[int]:
        batch = waiting[: self.batch_size]
        if self._can_pass_context:
            return batch
        other = (place for place, index in enumerate(batch) if limits[index] != limits[batch[0]])
        return batch[: next(other, len(batch))]

    def _halve(self, failed: int) -> None:
        self.batch_size = failed // 2
        _free_cache()
        logger.warning("Out of memory with %d samples at once: going on with %d.", failed, self.batch_size)

    @torch.no_grad()  # not inference mode, whose tensors could stay in a buffer and be refused by training
    def _draw(self, rows: Sequence[tuple[Request, int]], sampling: Sampling) -> list[Completion]:
        """Return the samples of one batch of (request, number of tokens that it may have)."""
        requests, limits = zip(*rows, strict=True)
        if sampling.choices:
            return self._choose(requests, limits, sampling)
        end_ids = end_token_ids(self.tokenizer, self.model.generation_config)
        pad_id = next(id for id in (self.tokenizer.pad_token_id, *end_ids, 0) if id is not None)
        prompts = [list(request.prompt_ids) for request in requests]
        inputs, width = self._inputs(prompts, pad_id)
        seeds = [request.seed for request in requests]
        settings = _settings(sampling, max(limits), end_ids, pad_id)
        if has_encoder(self.model):
            settings.decoder_start_token_id = decoder_start_id(self.model)
        with sampling_mode(self.model):
            output = self.model.generate(
                **{name: values.to(self.model.device) for name, values in inputs.items()},
                generation_config=settings,
                logits_processor=sampling_processors(sampling, seeds, max(limits), width),
                stopping_criteria=StoppingCriteriaList([RowEnds(self.tokenizer, sampling.stop, limits, width)]),
            )
            finished = [
                finished_tokens(self.tokenizer, row, limit, end_ids, sampling.stop)
                for row, limit in zip(output[:, width:].tolist(), limits, strict=True)
            ]
            tokens = [row_tokens for row_tokens, _, _ in finished]
            logprobs: Sequence[tuple[float, ...] | None] = [None] * len(rows)
            if sampling.logprobs:
                logprobs = completion_logprobs(self.model, list(zip(prompts, tokens, strict=True)), pad_id)
        return [
            Completion(text, tuple(ids), "stop" if is_done else "length", len(ids), row_logprobs)
            for (ids, text, is_done), row_logprobs in zip(finished, logprobs, strict=True)
        ]

    def _choose(self, requests: Sequence[Request], limits: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Return one of the choices for each request: all are scored behind its prompt, and one is drawn."""
        options = choice_ids(self.tokenizer, sampling.choices)
        longest = max(map(len, options))
        fitting = [request for request, limit in zip(requests, limits, strict=True) if limit >= longest]
        with sampling_mode(self.model):
            scores = self._scores([list(request.prompt_ids) for request in fitting], options)
        drawn = iter(
            [
                draw_choice(sampling, options, of_one, request.seed)
                for of_one, request in zip(scores, fitting, strict=True)
            ]
        )
        return [next(drawn) if limit >= longest else too_long() for limit in limits]

    def _scores(self, prompts: Sequence[list[int]], options: Sequence[list[int]]) -> list[list[tuple[float, ...]]]:
        """Return the log-probabilities of each option's tokens behind each prompt."""
        pad_id = self.tokenizer.pad_token_id or 0
        if not has_encoder(self.model) and all(len(ids) == 1 for ids in options):
            tokens = [ids[0] for ids in options]
            return [[(one,) for one in row] for row in next_logprobs(self.model, prompts, tokens, pad_id)]
        pairs = [(prompt, ids) for prompt in prompts for ids in options]
        scores = iter(completion_logprobs(self.model, pairs, pad_id))
        return [[next(scores) for _ in options] for _ in prompts]

    def _inputs(self, prompts: Sequence[list[int]], pad_id: int) -> tuple[dict[str, torch.Tensor], int]:
        """Return what `generate` reads, and how many tokens of each row of its output come before the completion."""
        if has_encoder(self.model):
            return encoder_inputs(prompts, pad_id), 1  # the decoder's start token
        ids, mask = _padded_left(prompts, pad_id)
        return {"input_ids": ids, "attention_mask": mask}, ids.shape[1]


def check_whole(model: Any) -> None:
    """Raise if every process holds a part of the model: they would wait for each other at different lengths."""
    is_partitioned = is_deepspeed_zero3_enabled() or any(
        hasattr(weight, "ds_id") or isinstance(weight, DTensor) for weight in model.parameters()
    )
    if is_partitioned:
        raise UsageError(
            "The model is partitioned between processes (ZeRO-3 or FSDP). Their samples end at different lengths, and "
            "they would wait for each other for ever: sample with a vllm engine, or train with ddp or zero2."
        )


@contextmanager
def sampling_mode(model: Any) -> Iterator[None]:
    """Evaluation mode and an empty generation config, in every module that has one; all as before afterwards."""
    training = [module for module in model.modules() if module.training]
    configs = {
        module: module.generation_config
        for module in model.modules()
        if isinstance(vars(module).get("generation_config"), GenerationConfig)
    }
    try:
        model.eval()
        for module in configs:
            module.generation_config = GenerationConfig()
        yield
    finally:
        for module, config in configs.items():
            module.generation_config = config
        for module in training:
            module.training = True


def _settings(sampling: Sampling, max_tokens: int, end_ids: list[int], pad_id: int) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,  # the processors pick the token
        repetition_penalty=float(sampling.repetition_penalty),
        eos_token_id=end_ids or None,
        pad_token_id=pad_id,
        use_cache=True,  # whatever the model's config says: gradient checkpointing switches it off there
    )


def _padded_left(prompts: Sequence[list[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, prompts))
    ids = [[pad_id] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _tokenizer_folder(adapter: str | Path | None) -> str | None:
    if adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file():
        return str(adapter)
    return None


def _with_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    if not (folder / "adapter_config.json").is_file():
        raise UsageError(f"{folder} holds no LoRA adapter: there is no adapter_config.json.")
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"The adapter in {folder} does not fit this model: {reason}") from error


def _free_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
