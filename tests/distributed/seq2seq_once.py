"""Train an encoder-decoder a few steps and write what was logged, in as many processes as started this."""

import json
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

import helpers
from seq2seq_helpers import make_seq2seq


def main() -> None:
    request = json.loads(sys.argv[1])
    trainer = make_seq2seq(request["output_dir"], getattr(helpers, request["dataset"])(), **request["settings"])
    trainer.train()
    if trainer.is_world_process_zero():
        result = {
            "history": helpers.history(trainer),
            "logs": trainer.state.log_history,
            "num_processes": trainer.accelerator.num_processes,
            "cut_up": any(hasattr(weight, "ds_id") for weight in trainer.model.parameters()),
        }
        Path(request["output_dir"], "result.json").write_text(json.dumps(result))
    trainer.end()


if __name__ == "__main__":
    main()
