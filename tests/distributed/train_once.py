"""Train a few steps and write what was logged; started by accelerate or torchrun, in as many processes as they say."""

import json
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import history, make_trainer, products, proofs


def main() -> None:
    request = json.loads(sys.argv[1])
    dataset = proofs() if request.get("dataset") == "proofs" else None
    if request.get("columns"):  # for each row of `products`
        dataset = products()
        for name, values in request["columns"].items():
            dataset = dataset.add_column(name, values)
    if request.get("lora"):
        from peft import LoraConfig

        request["settings"]["peft_config"] = LoraConfig(target_modules="all-linear", init_lora_weights=True)
    trainer = make_trainer(request["output_dir"], dataset, **request["settings"])
    trainer.train(resume_from_checkpoint=request.get("resume", False) or None)
    if trainer.is_world_process_zero():
        state = trainer._refill.state.__dict__ if trainer._refill is not None else None
        result = {
            "history": history(trainer),
            "logs": trainer.state.log_history,
            "num_processes": trainer.accelerator.num_processes,
            "distributed": str(trainer.accelerator.distributed_type),
            "refill": state,
        }
        Path(request["output_dir"], "result.json").write_text(json.dumps(result))
    trainer.end()


if __name__ == "__main__":
    main()
