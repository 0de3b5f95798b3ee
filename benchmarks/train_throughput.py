"""Tokens per second when training a library of LoRA experts: modjax in lockstep, peft one adapter after another.

    python benchmarks/train_throughput.py --out=benchmarks/results/NAME.json

Both sides train the same experts (rank 4, alpha 16, on q, k, v, o) on the same packed rows of the first open48
tasks over the embedded SmolLM2-135M in float32, from the same initial factors, with AdamW, gradient clipping and the
same learning rates, so their losses must agree at every step: the first and last ones are reported. peft gets the same
optimisations as modjax: a block-diagonal mask over packed rows, and logits at target positions only. The first run of
each side (compilation, warm-up) is reported but not compared; then runs alternate, and medians are compared. Tokens are
counted without padding.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import modjax
from modjax.data import loader
from modjax.data.pack import Rows, pack
from modjax.data.tokenize import encode
from modjax.models import gguf, gguf_tokenizer
from modjax.models.config import ModelConfig
from modjax.ops.lora import Factors
from modjax.train.lora import LoRATraining, init_factors
from modjax.train.optim import schedule
from modjax.train.programs import programs
from modjax.train.settings import Settings
from modjax.train.state import member_keys

SIDES = ("modjax", "peft")
Run = Callable[[], np.ndarray]  # trains from the initial factors and returns the losses, float[S,E] for S steps


def open48_batches(path: pathlib.Path, experts: int, settings: Settings) -> list[Rows]:
    """`settings.steps` batches [E, B, ...] of the first training tasks of open48, one task per expert."""
    words = gguf_tokenizer.read(path)
    tasks = list(modjax.data.load("open48").training.values())[:experts]
    rows = {
        task.name: pack(encode(words, task, task.split("train"), settings.length), settings.length) for task in tasks
    }
    return list(loader.batches(rows, settings.batch, settings.steps, settings.seed))


def initial_factors(config: ModelConfig, experts: int, settings: Settings) -> dict[str, Factors]:
    """Initial factors of both sides: A random, B zero, float32."""
    return init_factors(jax.random.key(settings.seed), experts, config, settings)


def modjax_side(path: pathlib.Path, factors: Mapping[str, Factors], settings: Settings, batches: Sequence[Rows]) -> Run:
    """All experts in lockstep: one compiled step per batch."""
    params = modjax.load(path, dtype=jnp.float32).params
    experts = len(batches[0].tokens)
    keys_E = member_keys(tuple(map(str, range(experts))), settings.seed)
    recipe = LoRATraining(params.config, settings, experts)
    made = programs(recipe, settings, factors, keys_E, mesh=None)

    def run():
        state, losses_SE = made.fresh(factors), []
        for batch in batches:
            state, metrics = made.step(params, state, jax.device_put(batch), keys_E, recipe.frozen)
            losses_SE.append(metrics.loss_E)
        return np.stack(jax.device_get(losses_SE))

    return run


def peft_side(path: pathlib.Path, factors: Mapping[str, Factors], settings: Settings, batches: Sequence[Rows]) -> Run:
    """One adapter after another, each with its own AdamW over the shared base: one step per batch and adapter."""
    import torch

    torch.set_num_threads(os.cpu_count())
    model, names = _peft_model(path, settings, experts=len(batches[0].tokens))
    rates = schedule(settings)

    def run():
        losses_ES = []
        for expert, name in enumerate(names):
            model.set_adapter(name)
            _put(model, name, factors, expert)
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, weight_decay=settings.weight_decay)
            losses_S = []
            for step, batch in enumerate(batches):
                optimizer.param_groups[0]["lr"] = float(rates(step))
                loss = _peft_loss(model, Rows(*(torch.as_tensor(field[expert]) for field in batch)))
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, settings.clip)
                optimizer.step()
                optimizer.zero_grad()
                losses_S.append(loss.item())
            losses_ES.append(losses_S)
        return np.asarray(losses_ES).T

    return run


def _peft_model(path, settings, experts):
    import peft
    import torch
    import transformers

    file = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    folder = path.parent if file else path
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **file)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=[_projection(site) for site in settings.sites],
    )
    names = [f"expert{i}" for i in range(experts)]
    model = peft.get_peft_model(base, config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    return model.train(), names


def _projection(site):
    return site.removeprefix("attn.") + "_proj"


def _put(model, name, factors, expert):
    """Sets one adapter of the torch model to the initial factors of an expert."""
    import torch

    with torch.no_grad():
        for index, layer in enumerate(model.get_base_model().model.layers):
            for site, (a_LERI, b_LERO) in factors.items():
                linear = getattr(layer.self_attn, _projection(site))
                linear.lora_A[name].weight.copy_(torch.tensor(np.asarray(a_LERI[index, expert])))
                linear.lora_B[name].weight.copy_(torch.tensor(np.asarray(b_LERO[index, expert].T)))


def _peft_loss(model, rows: Rows):
    """Mean cross-entropy over the targets of one expert's rows [B, ...]."""
    import torch

    causal_TT = torch.ones(rows.tokens.shape[-1:] * 2, dtype=torch.bool).tril()
    # Padding reads padding, because a query with no keys would give NaN.
    mask_BTT = causal_TT & (rows.segments[:, :, None] == rows.segments[:, None, :])
    base = model.get_base_model()
    hidden_BTD = base.model(
        input_ids=rows.tokens.long(),
        position_ids=rows.positions.long(),
        attention_mask=mask_BTT[:, None],
        use_cache=False,
    ).last_hidden_state
    row, target = rows.weights.nonzero(as_tuple=True)
    logits_MV = base.lm_head(hidden_BTD[row, rows.at[row, target].long()])
    return torch.nn.functional.cross_entropy(logits_MV, rows.labels[row, target].long())


BUILD = {"modjax": modjax_side, "peft": peft_side}


def compare(runs: dict[str, Run], tokens: int, repeats: int) -> dict:
    """Measurements of the sides, which run in turn, `repeats` times after one run that is not counted.

    Args:
      tokens: number of tokens in one run of a side.
    """
    first, losses = {}, {}
    for side, run in runs.items():
        first[side], losses[side] = _timed(run)
    speeds = {side: [] for side in runs}
    for _ in range(repeats):
        for side, run in runs.items():
            speeds[side].append(tokens / _timed(run)[0])
    result = {
        side: {
            "tokens_per_second": statistics.median(speeds[side]),
            "runs": speeds[side],
            "first_run_seconds": first[side],
            "loss_first_step": losses[side][0].tolist(),
            "loss_last_step": losses[side][-1].tolist(),
        }
        for side in runs
    }
    ours, theirs = (losses[side] for side in SIDES)
    result["ratio"] = result["modjax"]["tokens_per_second"] / result["peft"]["tokens_per_second"]
    result["loss_difference_first_step"] = float(np.abs(ours[0] - theirs[0]).max())
    result["loss_difference_last_step"] = float(np.abs(ours[-1] - theirs[-1]).max())
    return result


def _timed(run):
    start = time.perf_counter()
    losses_SE = run()
    return time.perf_counter() - start, losses_SE


def peak_memory(build: Callable[[], Run]) -> float | None:
    """Peak resident memory of a warm run beyond that before the model was loaded, in MiB; None if not on Linux.

    Call it in a separate process: memory that another side has used is not all returned to the system.
    """
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return None
    before = _resident(status, "VmRSS")
    run = build()
    run()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the peak, to leave out loading and compiling
    run()
    return _resident(status, "VmHWM") - before


def _resident(status, key):
    line = next(line for line in status.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def machine() -> dict:
    """The machine and the versions of packages."""
    packages = ("jax", "jaxlib", "flax", "optax", "torch", "transformers", "peft", "numpy")
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return {
        "device": f"{jax.devices()[0].device_kind} for modjax, cpu for peft",
        "cpu": names[0] if names else platform.processor(),
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages} | {"modjax": modjax.__version__},
    }


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", type=int, default=8, help="E")
    parser.add_argument("--batch", type=int, default=1, help="B, rows per expert and step")
    parser.add_argument("--length", type=int, default=256, help="T, tokens per row")
    parser.add_argument("--steps", type=int, default=2, help="steps per run")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs per side")
    parser.add_argument("--remat", action="store_true", help="modjax recomputes activations: less memory, slower")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="skip the two memory runs")
    parser.add_argument("--memory-of", choices=SIDES, help="only print the peak memory of this side in MiB")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the result, which is also printed")
    return parser.parse_args()


def main():
    """Runs the benchmark and prints one JSON object."""
    args = _arguments()
    # Child processes run first, while this process is small and idle.
    children = {}
    if args.memory and not args.memory_of:
        for side in SIDES:
            command = [sys.executable, *sys.argv, f"--memory-of={side}"]
            children[side] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    settings = Settings(steps=args.steps, batch=args.batch, length=args.length, dropout=0.0, remat=args.remat)
    path = gguf.embedded()
    batches = open48_batches(path, args.experts, settings)
    factors = initial_factors(gguf.config(path), args.experts, settings)
    builds = {side: functools.partial(build, path, factors, settings, batches) for side, build in BUILD.items()}
    if args.memory_of:
        if args.memory_of == "peft":
            import peft  # noqa: F401, imported so that its code is resident before the measurement, as jax's is
        print(json.dumps(peak_memory(builds[args.memory_of])))
        return
    tokens = sum(int((batch.segments > 0).sum()) for batch in batches)
    result = {
        "benchmark": pathlib.Path(__file__).stem,
        "model": path.name,
        "experts": args.experts,
        "batch": args.batch,
        "length": args.length,
        "steps": args.steps,
        "remat": args.remat,
        "tokens_per_run": tokens,
        **machine(),
        **compare({side: build() for side, build in builds.items()}, tokens, args.repeats),
        "peak_memory_mib": children,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
