"""A few steps of the recipes in configs/recipes.py on one accelerator, at full model size, beside their plans.

    python benchmarks/recipe_steps.py phi2_h100_8 mistral_v5p_128 --out=benchmarks/results/NAME.json

Weights are random, in bfloat16, and nothing is downloaded. A step trains the rows of one expert, as many and as long as
in the recipe, of the random examples that `accelerator_sizes` describes. The rows whose activations are held at a time
are chosen by the memory of the device, whatever the recipe says for its own devices.

`plan` is that of the same job on --topology by formulas: the least seconds of a step, and its memory.
"""

import functools
import gc
import statistics
from typing import Any

import accelerator_speed
import jax
import jax.numpy as jnp
import library_training
import measuring
import numpy as np
import recipe_plans
import train_throughput
from accelerator_sizes import TINY, instructions

from modjax.files import read_json_object
from modjax.models import local
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.studies.plan import plan
from modjax.train.settings import Settings

PACKAGES = ("flax", "optax", "numpy")


def job(name: str, steps: int, small: bool) -> tuple[ModelConfig, Settings]:
    """The model and the settings of a recipe, but for its steps and for what its own devices need."""
    config = recipe_plans.config(name)
    given = config.train.to_dict() | {"steps": steps, "micro": 0, "save_every": 0}
    if not small:
        return local.config(config.model), Settings(**given)
    sizes = read_json_object(local.KNOWN[config.model.rpartition("/")[2].lower()])
    tiny = sizes | TINY | {"num_attention_heads": 2, "num_key_value_heads": 2}
    return ModelConfig.from_hf(tiny, config.model), Settings(**given | {"length": 256, "batch": 2})


def measured(name: str, args) -> dict[str, Any]:
    """Seconds of a step, the share of the peak, the memory and the loss, of one recipe."""
    config, settings = job(name, args.steps, args.small)
    init = jax.jit(functools.partial(Decoder.init, config, dtype=jnp.bfloat16))
    examples = instructions(config.V, 1, settings.steps * settings.batch, settings.length)
    run = library_training.Modjax(init(jax.random.key(0)), examples, settings)
    first, trained = measuring.timed(run)
    whole = statistics.median(measuring.in_turn({name: run}, args.repeats)[name])
    seconds = whole / settings.steps
    return {
        "rows": settings.batch,
        "length": settings.length,
        "rows_at_a_time": run.settings.micro,
        "recomputed": run.settings.remat,
        "first_seconds": first,  # with compilation
        "step_seconds": seconds,
        "tokens_per_second": settings.batch * settings.length / seconds,
        **train_throughput.speed(config, run.batches, whole, 256 if args.small else 8192),
        "peak_mib": accelerator_speed.peak_mib(),
        "loss_before": run.loss(),
        "finite": all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(jax.device_get(trained))),
        "plan": planned(name, args.topology, run.settings),
    }


def planned(name: str, topology: str, settings: Settings) -> dict[str, float | None]:
    """What the plan of the recipe's model says of such a step on a device: its memory, and at least these seconds."""
    found = plan(recipe_plans.config(name).model, 1, topology, **vars(settings))
    seconds = found["step"]["seconds"] if found["fits"] else None
    return {"step_seconds": seconds, "mib": found["memory"]["total"] / 2**20}


def main():
    parser = measuring.parser(__doc__)
    parser.add_argument("names", nargs="+", choices=recipe_plans.names(), metavar="NAME", help="recipes")
    parser.add_argument("--steps", type=int, default=2, help="steps per run")
    parser.add_argument("--topology", default="h100:1", help="the device of the plans")
    args, found = parser.parse_args(), {}
    for name in args.names:
        found[name] = measured(name, args)
        gc.collect()
        measuring.report({"small": args.small, "recipes": found}, PACKAGES, args.out)


if __name__ == "__main__":
    main()
