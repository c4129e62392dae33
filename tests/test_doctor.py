"""The doctor finds what is wrong, says how to mend it, and survives whatever is broken."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from trl_math import doctor
from trl_math.cli import doctor as command
from trl_math.doctor import examine, hardware, software
from trl_math.errors import UsageError
from trl_math.launch import launch_plan
from trl_math.plan import GIB
from trl_math.recipes import read_recipe


RECIPE = {"model_name_or_path": "someone/some-model", "accelerate_config": "zero2", "output_dir": "out"}
CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


def gpus(count: int, gib: int = 80, major: int = 9) -> list[SimpleNamespace]:
    return [SimpleNamespace(name="Fake GPU", total_memory=gib * GIB, major=major, minor=0)] * count


@pytest.fixture
def machine(monkeypatch):
    """A machine with the given GPUs, which has the config of the model at hand."""

    def pretend(count: int, config: dict | None = CONFIG, **kinds) -> None:
        monkeypatch.setattr(hardware, "_gpus", lambda: gpus(count, **kinds))
        monkeypatch.setattr(hardware, "_model_config", lambda recipe: config if recipe else None)

    return pretend


@pytest.fixture
def without(monkeypatch):
    """A machine that lacks some packages."""

    def pretend(*packages: str) -> None:
        for module in (hardware, software):
            monkeypatch.setattr(module, "is_installed", lambda package: package not in packages)

    return pretend


def run(check, recipe: dict | None = None) -> dict[str, doctor.Finding]:
    recipe = recipe or {}
    plan = launch_plan(recipe.get("accelerate_config"), recipe.get("num_processes"))
    return {finding.name: finding for finding in check(recipe, plan)}


def test_this_machine_is_examined_to_the_end():
    for recipe in (None, read_recipe("dco/llama3-8b-math-direct-n256")):
        findings = examine(recipe)
        assert not [finding for finding in findings if "could not be examined" in finding.detail]
        assert {"python", "torch", "trl", "nccl", "hub", "gpus", "disk"} <= {finding.name for finding in findings}
        assert all(finding.fix for finding in findings if finding.status != "ok")
        assert all(finding.status in ("ok", "info", "warn", "fail") for finding in findings)
        assert all("\n" not in finding.detail + finding.fix for finding in findings)


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(monkeypatch):
    def check_tea(recipe, launch):
        yield doctor.Finding("cup", "ok", "clean")
        raise RuntimeError("the pot\nis broken")

    monkeypatch.setattr(doctor, "CHECKS", (check_tea, software.check_python))
    cup, tea, python = examine()
    assert cup.status == "ok" and python.name == "python"
    assert (tea.name, tea.status) == ("tea", "warn")
    assert "RuntimeError: the pot is broken" in tea.detail


def test_what_checks_print_stays_out_of_standard_output(monkeypatch, capsys):
    def check_noise(recipe, launch):
        print("noise")
        yield doctor.Finding("noise", "ok", "")

    monkeypatch.setattr(doctor, "CHECKS", (check_noise,))
    examine()
    assert capsys.readouterr().out == ""


def test_unknown_launch_is_a_failure_that_names_the_known_ones():
    finding = examine({"accelerate_config": "zero5"})[0]
    assert (finding.name, finding.status) == ("launch", "fail")
    assert "zero2" in finding.detail


def test_versions_are_compared_with_the_requirements(monkeypatch):
    installed = {"trl-math": "0.1.0", "torch": "2.12.0", "trl": "1.15.0", "vllm": "0.20.0", "wandb": "0.31.0"}
    wanted = [
        "torch>=2.11",
        "trl>=1.16,<2",
        "peft>=0.21",
        'vllm>=0.30,<0.32; extra == "vllm"',
        'wandb>=0.31; extra == "wandb"',
        'gguf>=0.19; extra == "demo"',
        'trl-math[wandb]; extra == "test"',
    ]
    monkeypatch.setattr(software, "version_of", installed.get)
    monkeypatch.setattr(software.importlib.metadata, "requires", lambda name: wanted)
    found = run(software.check_packages)
    assert found["torch"].status == "ok"
    assert found["trl"].status == "fail" and found["trl"].fix == "pip install 'trl<2,>=1.16'"
    assert found["peft"].status == "fail" and found["peft"].detail.startswith("not installed")
    assert found["vllm"].status == "warn"
    assert found["optional"].detail == "wandb 0.31.0"
    assert "gguf" not in found


def test_a_local_part_of_a_version_does_not_matter(monkeypatch):
    monkeypatch.setattr(software.importlib.metadata, "version", lambda name: "2.13.0+cu130")
    assert software.version_of("torch") == "2.13.0"


def test_vllm_outside_the_window_is_reported_in_the_words_of_trl(monkeypatch, without):
    import warnings

    from trl import import_utils

    without()
    monkeypatch.setattr(import_utils, "is_vllm_available", lambda: warnings.warn("only 0.22 to 0.31", stacklevel=2))
    finding = run(software.check_vllm)["vllm"]
    assert finding.status == "warn" and finding.detail == "only 0.22 to 0.31"
    monkeypatch.setattr(import_utils, "is_vllm_available", lambda: True)
    assert run(software.check_vllm)["vllm"].status == "ok"
    without("vllm")
    finding = run(software.check_vllm)["vllm"]
    assert finding.status == "info" and "trl-math[vllm]" in finding.fix


def test_deepspeed_is_needed_only_where_the_launch_says_so(without):
    without("deepspeed")
    assert run(software.check_deepspeed)["deepspeed"].status == "info"
    assert run(software.check_deepspeed, {"accelerate_config": "ddp"})["deepspeed"].status == "info"
    finding = run(software.check_deepspeed, {"accelerate_config": "zero3"})["deepspeed"]
    assert finding.status == "fail" and "fsdp2" in finding.fix


def test_deepspeed_without_a_compiler_matters_when_offloading(monkeypatch, tmp_path):
    pytest.importorskip("deepspeed")
    monkeypatch.setattr(software.shutil, "which", lambda tool: None)
    finding = run(software.check_deepspeed, {"accelerate_config": "zero2"})["deepspeed"]
    assert finding.status == "info" and "missing: g++, ninja" in finding.detail
    mine = tmp_path / "offload.yaml"
    mine.write_text("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2, offload_optimizer_device: cpu}\n")
    assert run(software.check_deepspeed, {"accelerate_config": str(mine)})["deepspeed"].status == "fail"


def test_packages_that_do_not_import_are_reported(monkeypatch, without, machine):
    without()
    machine(1)
    monkeypatch.setattr(software, "import_error", lambda package: "undefined symbol")
    monkeypatch.setattr(hardware, "import_error", lambda package: "undefined symbol")
    assert run(software.check_deepspeed)["deepspeed"].status == "warn"
    assert run(software.check_deepspeed, {"accelerate_config": "zero2"})["deepspeed"].status == "fail"
    finding = run(hardware.check_attention, {"attn_implementation": "flash_attention_2"})["flash_attn"]
    assert finding.status == "fail" and "no-build-isolation" in finding.fix


def test_import_error_says_what_went_wrong(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise OSError('libcudart.so not found')")
    monkeypatch.syspath_prepend(tmp_path)
    assert software.import_error("json") is None
    assert "libcudart.so not found" in software.import_error("broken_package")


def test_flash_attention_needs_package_and_gpu(monkeypatch, without, machine):
    recipe = {"attn_implementation": "flash_attention_2"}
    without("flash_attn")
    assert run(hardware.check_attention)["flash_attn"].status == "info"
    finding = run(hardware.check_attention, recipe)["flash_attn"]
    assert finding.status == "fail" and "--attn_implementation sdpa" in finding.fix
    without()
    monkeypatch.setattr(hardware, "import_error", lambda package: None)
    machine(2, major=7)
    assert run(hardware.check_attention, recipe)["flash_attn"].status == "fail"
    machine(2)
    assert run(hardware.check_attention, recipe)["flash_attn"].status == "ok"


@pytest.mark.parametrize("name", software.NCCL_TRAPS)
def test_nccl_settings_that_hurt_are_named(name, monkeypatch):
    for trap in software.NCCL_TRAPS:
        monkeypatch.delenv(trap, raising=False)
    value = software.NCCL_TRAPS[name][0]
    assert run(software.check_nccl)["nccl"].status == "ok"
    monkeypatch.setenv(name, "1" if value == "0" else "0")
    assert run(software.check_nccl)["nccl"].status == "ok"
    monkeypatch.setenv(name, value)
    finding = run(software.check_nccl, {"accelerate_config": "zero3_multinode"})["nccl"]
    assert finding.status == "warn" and finding.detail.startswith(f"{name}={value}")
    assert finding.fix == f"unset {name}"
    # One machine has no use for InfiniBand.
    alone = run(software.check_nccl)["nccl"].status
    assert alone == ("info" if name == "NCCL_IB_DISABLE" else "warn")


def test_nccl_settings_of_the_recipe_count_too(monkeypatch):
    monkeypatch.delenv("NCCL_P2P_DISABLE", raising=False)
    assert run(software.check_nccl, {"env": {"NCCL_P2P_DISABLE": 1}})["nccl"].status == "warn"
    monkeypatch.setenv("NCCL_P2P_DISABLE", "0")  # what is set already wins
    assert run(software.check_nccl, {"env": {"NCCL_P2P_DISABLE": 1}})["nccl"].status == "ok"


@pytest.mark.parametrize(
    ("value", "recipe", "status"),
    [
        (None, {}, "ok"),
        ("true", {}, "warn"),
        ("1", {"dataset_num_proc": 4}, "warn"),
        ("false", {}, "info"),
        ("false", {"dataset_num_proc": 4}, "ok"),
    ],
)
def test_tokenizers_parallelism(value, recipe, status, monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if value:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", value)
    assert run(software.check_tokenizers, recipe)["tokenizers"].status == status


def test_wandb_needs_a_key_where_the_recipe_reports_to_it(monkeypatch, tmp_path, without):
    without()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    recipe = {"report_to": ["wandb"]}
    assert run(software.check_wandb)["wandb"].status == "info"
    assert run(software.check_wandb, recipe)["wandb"].status == "fail"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert run(software.check_wandb, recipe)["wandb"].status == "ok"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert run(software.check_wandb, recipe)["wandb"].status == "fail"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run(software.check_wandb, recipe)["wandb"].status == "ok"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert run(software.check_wandb, recipe)["wandb"].status == "ok"
    without("wandb")
    assert run(software.check_wandb, {"report_to": "wandb"})["wandb"].status == "fail"


def test_secrets_are_never_shown(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-wandb")
    monkeypatch.setenv("HF_TOKEN", "secret-of-hub")
    command.run(["--json"])
    printed = capsys.readouterr()
    assert "secret-of" not in printed.out + printed.err


def test_hub_login_and_offline_mode(monkeypatch, machine):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    machine(1, config=None)
    finding = run(hardware.check_hub, RECIPE)["hub"]
    assert finding.status == "info" and finding.fix == "hf auth login"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    finding = run(hardware.check_hub, RECIPE)["hub"]
    assert finding.status == "fail" and "hf download someone/some-model" in finding.fix
    machine(1)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    assert run(hardware.check_hub, RECIPE)["hub"].status == "ok"


def test_a_recipe_for_gpus_fails_without_them(monkeypatch, machine):
    monkeypatch.setattr(hardware.shutil, "which", lambda tool: None)
    machine(0)
    assert run(hardware.check_gpus)["gpus"].status == "info"
    finding = run(hardware.check_gpus, RECIPE)["gpus"]
    assert finding.status == "fail" and "--smoke" in finding.fix
    assert run(hardware.check_gpus, {"accelerate_config": "cpu"})["gpus"].status == "ok"
    monkeypatch.setattr(hardware.shutil, "which", lambda tool: "/usr/bin/nvidia-smi")
    finding = run(hardware.check_gpus)["gpus"]
    assert finding.status == "fail" and "sees no GPU" in finding.detail


def test_fewer_gpus_than_processes_are_mended_at_the_same_batch(machine):
    machine(2)
    recipe = {**RECIPE, "gradient_accumulation_steps": 4}
    finding = run(hardware.check_gpus, recipe)["processes"]
    assert finding.status == "fail"
    assert finding.fix.startswith("--num_processes 2 --gradient_accumulation_steps 16")
    assert "processes" not in run(hardware.check_gpus, {**recipe, "num_processes": 2})
    machine(3)
    assert run(hardware.check_gpus, recipe)["processes"].fix == "--num_processes 3"
    machine(8)
    assert "processes" not in run(hardware.check_gpus, recipe)
    assert "processes" not in run(hardware.check_gpus, {**recipe, "accelerate_config": "zero3_multinode"})
    # Several GPUs for one process would be used by DataParallel, which TRL refuses.
    assert run(hardware.check_gpus, {"model_name_or_path": "x/y"})["processes"].status == "fail"


def test_bfloat16_needs_ampere(machine):
    machine(8, major=7)
    assert run(hardware.check_gpus, RECIPE)["bf16"].status == "fail"
    assert "bf16" not in run(hardware.check_gpus, {**RECIPE, "bf16": False, "fp16": True})
    machine(8)
    assert "bf16" not in run(hardware.check_gpus, RECIPE)


def test_memory_is_compared_with_the_estimate(machine):
    recipe = {**RECIPE, "dtype": "bfloat16", "max_length": 2048, "per_device_train_batch_size": 4}  # about 40 GiB
    machine(8, gib=80)
    assert run(hardware.check_memory, recipe)["memory"].status == "ok"
    machine(8, gib=44)
    assert run(hardware.check_memory, recipe)["memory"].status == "warn"
    machine(8, gib=24)
    finding = run(hardware.check_memory, recipe)["memory"]
    assert finding.status == "fail" and "of 24 GiB" in finding.detail and "zero3" in finding.fix
    machine(0)
    assert run(hardware.check_memory, recipe)["memory"].status == "info"
    machine(8, config=None)
    finding = run(hardware.check_memory, recipe)["memory"]
    assert finding.status == "info" and "hf download someone/some-model config.json" in finding.fix
    machine(8, config={"model_type": "gpt2"})
    assert "gpt2 is not" in run(hardware.check_memory, recipe)["memory"].detail
    machine(8)
    assert run(hardware.check_memory) == run(hardware.check_memory, {**recipe, "use_cpu": True}) == {}


def test_disk_must_hold_the_checkpoints(monkeypatch, machine):
    machine(8)
    free = 100 * GIB
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert run(hardware.check_disk)["disk"].status == "ok"
    epochs = {**RECIPE, "save_strategy": "epoch", "num_train_epochs": 4}
    finding = run(hardware.check_disk, epochs)["disk"]
    assert finding.status == "fail" and "509 GiB may be needed" in finding.detail  # 8.03e9 * (4 + 4 * 16) bytes
    assert run(hardware.check_disk, {**epochs, "save_only_model": True, "save_total_limit": 1})["disk"].status == "ok"
    assert run(hardware.check_disk, {**epochs, "use_peft": True})["disk"].status == "ok"
    assert run(hardware.check_disk, {**epochs, "save_strategy": "no"})["disk"].status == "ok"
    free = GIB
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert run(hardware.check_disk)["disk"].status == "warn"


def test_the_recipe_itself_is_checked(machine, tmp_path):
    machine(0)
    recipe = read_recipe("dco/llama3-8b-math-direct-n16")
    assert run(hardware.check_recipe, recipe)["recipe"].detail == "effective batch 128 on 8 processes"
    assert run(hardware.check_recipe) == {}
    finding = run(hardware.check_recipe, {**recipe, "learning_rat": 1e-5})["recipe"]
    assert finding.status == "fail" and "learning_rate" in finding.detail
    mine = tmp_path / "mine.yaml"
    settings = "zero_stage: 3, gradient_accumulation_steps: 2"
    mine.write_text(f"distributed_type: DEEPSPEED\nnum_processes: 8\ndeepspeed_config: {{{settings}}}\n")
    finding = run(hardware.check_recipe, {**recipe, "accelerate_config": str(mine)})["recipe"]
    assert finding.status == "fail" and "gradient_accumulation_steps is 2 in mine.yaml" in finding.detail
    settings = "zero_stage: 3, gradient_accumulation_steps: auto"
    mine.write_text(f"distributed_type: DEEPSPEED\nnum_processes: 8\ndeepspeed_config: {{{settings}}}\n")
    found = run(hardware.check_recipe, {**recipe, "accelerate_config": str(mine)})
    assert found["checkpoints"].status == "warn" and "zero3_save_16bit_model: true" in found["checkpoints"].fix
    assert found["recipe"].status == "ok"


FINDINGS = [
    doctor.Finding("one", "ok", "fine"),
    doctor.Finding("second", "info", "a remark", "do this"),
    doctor.Finding("third", "warn", "a warning", "do that"),
]


def test_command_prints_aligned_lines_and_a_summary(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda recipe: FINDINGS)
    assert command.run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "✓ one     fine"
    assert lines[1:3] == ["· second  a remark", "          -> do this"]
    assert lines[-1] == "1 fine, 1 remarks, 1 warnings, 0 failures"


def test_command_fails_if_a_check_fails_and_prints_json(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda recipe: [*FINDINGS, doctor.Finding("last", "fail", "no", "yes")])
    assert command.run(["--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert findings[-1] == {"name": "last", "status": "fail", "detail": "no", "fix": "yes"}


def test_command_overrides_the_recipe_with_flags(monkeypatch):
    seen = []
    monkeypatch.setattr(doctor, "examine", lambda recipe: seen.append(recipe) or FINDINGS)
    command.run(["--config", "dco/llama3-8b-math-direct-n16", "--num_processes", "2"])
    assert seen[0]["num_processes"] == 2 and seen[0]["num_attempts"] == 16
    with pytest.raises(UsageError, match="There is no recipe"):
        command.run(["--config", "nothing.yaml"])


def test_command_speaks_ascii_to_a_terminal_that_knows_no_more(monkeypatch):
    class Ascii:
        encoding = "ascii"

    monkeypatch.setattr(command.sys, "stdout", Ascii())
    assert not command._can_encode("✓")
    code = (
        "from trl_math import doctor; from trl_math.cli import doctor as command\n"
        "doctor.examine = lambda recipe: [doctor.Finding('x', 'fail', 'd', 'f')]\n"
        "raise SystemExit(command.run([]))"
    )
    environment = {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, text=True)
    assert done.returncode == 1 and done.stdout.splitlines()[0] == "XX x  d", done.stderr


def test_help_is_quick():
    code = (
        "import sys\nfrom trl_math.cli import doctor\n"
        "try: doctor.run(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'trl', 'deepspeed', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_generation_recipe_needs_engines(monkeypatch):
    """Of a recipe that trains nothing, the engines are looked at: GPUs that are there, servers that answer."""
    from trl_math.doctor import engines

    recipe = read_recipe("generate/math-cot-72b-2engines")
    monkeypatch.setattr(engines, "is_installed", lambda package: True)
    for visible, status in ((8, "ok"), (7, "fail"), (0, "fail")):
        monkeypatch.setattr(engines, "visible_gpus", lambda visible=visible: ["gpu"] * visible)
        [finding] = [finding for finding in examine(recipe) if finding.name == "engines"]
        assert finding.status == status, visible
    served = {"command": "generate", "model": "m", "data": "d", "server_urls": ["http://127.0.0.1:9/v1"]}
    [finding] = [finding for finding in examine(served) if finding.name == "server"]
    assert finding.status == "fail" and "127.0.0.1:9" in finding.detail
    [finding] = [finding for finding in examine({**recipe, "tensor_paralel_size": 4}) if finding.name == "recipe"]
    assert "tensor_parallel_size" in finding.detail


@pytest.mark.parametrize(
    "name", ["on-policy-dpo/times-tables", "evaluate/arithmetic-laptop", "difficulty/products-laptop"]
)
def test_recipes_of_stages_and_of_evaluations_are_read(name, capsys):
    """What several stages need is said once, and the settings of each are read by its own command."""
    command.run(["--config", name, "--json"])
    found = [(finding["name"], finding["status"]) for finding in json.loads(capsys.readouterr().out)]
    assert len(set(found)) == len(found) and "engines" in dict(found)
    assert "fail" not in dict(found).values()
    assert ("disk" in dict(found)) == ("on-policy" in name)


def test_the_worst_of_several_recipes_is_shown():
    """A finding that is fine for one stage and fails for another is a failure; what differs is all shown."""
    fine, small, smaller = (
        doctor.Finding("gpus", status, detail) for status, detail in (("ok", "8"), ("fail", "4"), ("fail", "2"))
    )
    disk = doctor.Finding("disk", "ok", "much")
    assert doctor.worst_of([[fine, disk], [small, disk], [smaller]]) == [disk, small, smaller]


def test_a_recipe_that_runs_no_model_is_none_for_the_doctor(tmp_path):
    (tmp_path / "x.yaml").write_text("command: pairs\nsamples: x\n")
    with pytest.raises(UsageError, match="doctor looks at recipes of"):
        command.run(["--config", str(tmp_path / "x.yaml")])


def test_a_generation_recipe_without_vllm(monkeypatch):
    from trl_math.doctor import engines

    monkeypatch.setattr(engines, "is_installed", lambda package: False)
    [finding] = [f for f in examine(read_recipe("generate/math-cot-8gpus")) if f.status == "fail" and f.name == "vllm"]
    assert "trl-math[vllm]" in finding.fix
