"""Train on pairs for a few steps and write what was logged; started by accelerate or torchrun, in their processes."""

import json
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

from dpo_helpers import make_dpo_trainer, sampled_pairs
from helpers import history


def main() -> None:
    request = json.loads(sys.argv[1])
    if request.get("lora"):
        from peft import LoraConfig

        request["settings"]["peft_config"] = LoraConfig(target_modules="all-linear", init_lora_weights=True)
    trainer = make_dpo_trainer(request["output_dir"], sampled_pairs(), **request["settings"])
    trainer.train(resume_from_checkpoint=request.get("resume", False) or None)
    if trainer.is_world_process_zero():
        result = {
            "history": history(trainer),
            "logs": trainer.state.log_history,
            "num_processes": trainer.accelerator.num_processes,
            "distributed": str(trainer.accelerator.distributed_type),
        }
        Path(request["output_dir"], "result.json").write_text(json.dumps(result))
    trainer.end()


if __name__ == "__main__":
    main()
