"""Training with live screening, in one process or several, beside an engine or not: writes what was logged.

`requests` are trained one after the other in this process. One with `kill_at` ends by SIGKILL before its so-manieth
draw of samples.
"""

import json
import os
import signal
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import history
from peft import LoraConfig
from screening_runs import problems, screening_trainer

from trl_math.generation.live import LiveEngines
from trl_math.generation.together import gather, place
from trl_math.trainers.pass_rate_sampler import PassRateSampler


STARTED = []


def count_engines():
    """Note every start of engines: evaluation and screening are to share one."""
    begin = LiveEngines.__init__

    def noted(self, *args, **options):
        STARTED.append(options)
        begin(self, *args, **options)

    LiveEngines.__init__ = noted


def kill_at(number):
    """Let this process end before its so-manieth draw."""
    draw, count = PassRateSampler._draw, iter(range(number))

    def counted(self, *args):
        if next(count, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(self, *args)

    PassRateSampler._draw = counted


def run(answerer, folder, rows=("75", 24), resume=None, kill=None, lora=False, **settings):
    if kill is not None:
        kill_at(kill)
    if lora:
        settings["peft_config"] = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    STARTED.clear()
    if settings.get("screening_engine") == "vllm":  # which reads the model's files, and so does ZeRO-3
        settings["model"] = f"{answerer}/model"
        settings["model_init_kwargs"] = {"dtype": "float32"}
    if "eval_strategy" in settings:
        settings["eval_dataset"] = problems("5", 4)
    trainer = screening_trainer(answerer, folder, problems(*rows), **settings)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(f"{folder}/saved")
    cache = trainer._screening.cache
    result = {
        "history": history(trainer),
        "logs": trainer.state.log_history,
        "caches": gather(cache.as_json()),
        "queue": trainer._refill.state.queue,
        "cut_up": any(hasattr(p, "ds_id") for p in trainer.model.parameters()),
        "num_engines": len(STARTED),
        "engine": type(trainer._screening.engine).__name__,
    }
    if place()[0] == 0:
        Path(folder, "result.json").write_text(json.dumps(result))
    return trainer


def main() -> None:
    count_engines()
    for request in json.loads(sys.argv[1]):
        request["kill"] = request.pop("kill_at", None)
        trainer = run(**request)
    trainer.end()


if __name__ == "__main__":
    main()
