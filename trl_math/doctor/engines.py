"""What `trl-math generate` and `evaluate` need of this machine: engines that fit its GPUs, or servers that answer."""

# ruff: noqa: PLC0415 - a check imports what it looks at, so that a broken package becomes a finding

from typing import Any

from trl_math.doctor.finding import Finding, Findings, Recipe, missing
from trl_math.errors import TrlMathError
from trl_math.launch import LaunchPlan
from trl_math.optional import is_installed
from trl_math.share import visible_gpus


def check_engines(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    """Read the recipe strictly, then look at what its backend needs."""
    from trl_math.recipes import build_evaluate, build_generate

    backend = recipe.get("backend", "auto")
    if backend == "vllm" and not is_installed("vllm"):
        yield missing("vllm", True, "not installed, and the recipe asks for it", "--backend transformers")
        return
    try:
        arguments = build_evaluate(recipe) if recipe.get("command") == "evaluate" else build_generate(recipe)
    except TrlMathError as error:
        yield Finding("recipe", "fail", str(error), "change the recipe as the message says")
        return
    engine = arguments.engine
    if engine.engine == "server":
        yield from _servers(engine)
        return
    needed, gpus = engine.data_parallel_size * engine.tensor_parallel_size, len(visible_gpus())
    detail = f"{engine.data_parallel_size} x {engine.engine} of {engine.tensor_parallel_size} GPUs, {gpus} visible"
    if gpus and needed > gpus:
        yield Finding("engines", "fail", detail, f"--data-parallel-size {max(gpus // engine.tensor_parallel_size, 1)}")
    elif not gpus:
        fix = "use a machine with GPUs, or try the recipe on this one with --smoke"
        is_small = needed == 1 and backend == "auto"
        detail = f"{engine.engine}, on the CPU" if is_small else f"{detail}: they would run on the CPU"
        yield Finding("engines", "info" if is_small else "fail", detail, "" if is_small else fix)
    else:
        yield Finding("engines", "ok", detail)


def _servers(engine: Any) -> Findings:
    import httpx2

    from trl_math.generation.server_discovery import authorisation, discover, full_url

    for url in engine.server_urls:
        try:
            with httpx2.Client(headers=authorisation()) as client:
                server = discover(full_url(url), engine.model, client)
            yield Finding("server", "ok", f"{server.name} serves {engine.model} ({server.engine} {server.version})")
        except TrlMathError as error:
            yield Finding("server", "fail", str(error), "start it, or give other server_urls")
