"""Training in several processes, or beside a vLLM engine, with evaluation by generation: writes what every one saw."""

import json
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

from datasets import Dataset
from helpers import make_trainer

from trl_math import GenerationEvalCallback
from trl_math.errors import TrlMathError
from trl_math.generation.together import gather, place
from trl_math.models import resolve_model
from trl_math.records import Sampling


def main() -> None:
    request = json.loads(sys.argv[1])
    folder = resolve_model("embedded:tiny")
    rows = Dataset.from_list(request["rows"])
    settings = {"model_init_kwargs": {"dtype": "float32"}, **request["settings"]}
    trainer = make_trainer(
        request["output_dir"],
        rows,
        model=folder,
        processing_class=None,
        eval_dataset=rows.select(range(4)),
        **settings,
    )
    callback = GenerationEvalCallback(
        trainer,
        Dataset.from_list(request["problems"]),
        prompt_style="plain",
        sampling=Sampling(**request["sampling"]),
        engine=request["engine"],
        engine_options={"dtype": "float32", "max_num_seqs": 8} if request["engine"] != "transformers" else None,
    )
    trainer.add_callback(callback)
    if request.get("blocks"):
        Path(request["output_dir"], "eval_samples").write_text("in the way")
    try:
        trainer.train()
    except TrlMathError as error:
        Path(request["output_dir"], f"failure-{place()[0]}.txt").write_text(str(error))
        raise
    trainer.save_model(f"{request['output_dir']}/saved")
    saw = [
        {name: value for name, value in log.items() if "@" in name or name == "step"}
        for log in trainer.state.log_history
        if "eval_pass@1" in log
    ]
    result = {
        "saw": gather(saw),
        "best": gather(trainer.state.best_metric),
        "after": trainer.evaluate()["eval_pass@1"],
        "cut_up": any(hasattr(p, "ds_id") for p in trainer.model.parameters()),
        "engine": callback._engine_name,
    }
    if place()[0] == 0:
        Path(request["output_dir"], "result.json").write_text(json.dumps(result))
    trainer.end()


if __name__ == "__main__":
    main()
