"""Training on live pairs beside engines of vLLM, in one process or several: writes what was logged and said.

`runs` are trained one after the other in this process, each with its folder, settings and checkpoint to resume.
"""

import json
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

from live_runs import live_trainer
from peft import LoraConfig

from trl_math.generation.live import LiveEngines
from trl_math.generation.together import gather, place


def live_logs(trainer):
    names = ("live/parity", "live/parity_max", "live/staleness_max", "live/drift", "live/pass_rate", "eval_pass@1")
    return [{name: log[name] for name in ("step", "loss", *names) if name in log} for log in trainer.state.log_history]


STARTED = []


def count_engines():
    """Note every start of engines: evaluation and live pairs are to share one."""
    begin = LiveEngines.__init__

    def noted(self, *args, **options):
        STARTED.append(options)
        begin(self, *args, **options)

    LiveEngines.__init__ = noted


def run(answerer, folder, resume=None, lora=False, **settings):
    if lora:
        settings["peft_config"] = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    STARTED.clear()
    trainer = live_trainer(answerer, folder, **settings)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(f"{folder}/saved")
    state = trainer._live.state
    result = {
        "logs": live_logs(trainer),
        "states": gather([state.num_refreshes, state.num_pairs, len(state.buffer)]),
        "cut_up": any(hasattr(p, "ds_id") for p in trainer.model.parameters()),
        "num_engines": len(STARTED),
        "engine": str(type(trainer._sampler._engine).__name__),
    }
    if place()[0] == 0:
        Path(folder, "result.json").write_text(json.dumps(result))
    return trainer


def main() -> None:
    count_engines()
    for request in json.loads(sys.argv[1]):
        trainer = run(**request)
    trainer.end()


if __name__ == "__main__":
    main()
