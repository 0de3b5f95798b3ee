"""Tokens per second when training a library of LoRA experts on equal rows, and its share of the machine's peak.

    python benchmarks/train_throughput.py --out=benchmarks/results/NAME.json

modjax trains all experts in lockstep, peft one adapter after another, both the same experts (rank 4, alpha 16, on q, k,
v, o) on the same rows of the first open48 tasks over the embedded SmolLM2-135M in float32, from the same initial
factors, with AdamW, gradient clipping and the same learning rates, so their losses must agree at every step: the first
and last ones are reported. peft gets the same optimisations as modjax: the mask of prefix trees, and logits at target
positions only. The first run of each side (compilation, warm-up) is not compared; then runs alternate, and medians are
compared. Tokens are those of the rows, without padding.

Model FLOP/s are the operations that the model needs per second: 2 per weight and token forward, 2 backward (the base is
frozen, so its weights have no gradients), the same for the head at targets only, and 12 N H per layer and pair of
a query and a key that it may read. Adapters and recomputation are not counted. The peak is that of one large product of
matrices in float32, measured in the same run.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import peer
import torch

import modjax
from modjax.data import loader
from modjax.data.rows import Rows, pack
from modjax.data.tokenize import encode
from modjax.models import gguf, gguf_tokenizer, hf
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.ops.lora import Factors
from modjax.train.flops import flops
from modjax.train.lora import LoRATraining, init_factors
from modjax.train.optim import Lengths, rates
from modjax.train.programs import programs
from modjax.train.settings import Settings
from modjax.train.step import member_keys

PACKAGES = ("flax", "optax", "torch", "transformers", "peft", "numpy")
SIDES = ("modjax", "peft")
Run = Callable[[], np.ndarray]  # trains from the initial factors and returns the losses, float[S,E] for S steps


def open48_batches(experts: int, settings: Settings) -> list[Rows]:
    """`settings.steps` batches [E, B, ...] of the first training tasks of open48, one task per expert."""
    words = gguf_tokenizer.read(gguf.embedded())
    tasks = list(modjax.data.load("open48").training.values())[:experts]
    rows = {
        task.name: pack(encode(words, task, task.split("train"), settings.length), settings.length) for task in tasks
    }
    return list(loader.batches(rows, settings.batch, settings.steps, settings.seed))


def initial_factors(config: ModelConfig, experts: int, settings: Settings) -> dict[str, Factors]:
    """Initial factors of both sides: A random, B zero, float32."""
    return init_factors(jax.random.key(settings.seed), experts, config, settings)


def modjax_side(decoder: Decoder, factors: Mapping[str, Factors], settings: Settings, batches: Sequence[Rows]) -> Run:
    """All experts in lockstep: one compiled step per batch."""
    experts = len(batches[0].tokens)
    keys_E = member_keys(tuple(map(str, range(experts))), settings.seed)
    recipe = LoRATraining(decoder.config, settings, experts)
    made = programs(recipe, settings, factors, keys_E, mesh=None)
    lengths = Lengths.of(settings, [settings.steps] * experts)

    def run():
        state, losses_SE = made.fresh(factors), []
        for batch in batches:
            state, metrics = made.step(decoder, state, jax.device_put(batch), keys_E, lengths, recipe.frozen)
            losses_SE.append(metrics.loss_E)
        return np.stack(jax.device_get(losses_SE))

    return run


def peft_side(base, factors: Mapping[str, Factors], settings: Settings, batches: Sequence[Rows]) -> Run:
    """One adapter after another, each with its own AdamW over the shared base: one step per batch and adapter."""
    names = [f"expert{i}" for i in range(len(batches[0].tokens))]
    model = peer.with_experts(base, settings, names)
    rates_S = rates(settings, Lengths.of(settings, [settings.steps]), np.arange(settings.steps))

    def run():
        losses_ES = []
        for expert, name in enumerate(names):
            model.set_adapter(name)
            peer.put(model, name, factors, expert)
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, weight_decay=settings.weight_decay)
            losses_S = []
            for step, batch in enumerate(batches):
                optimizer.param_groups[0]["lr"] = float(rates_S[step])
                loss = peft_loss(model, Rows(*(torch.as_tensor(field[expert], device=model.device) for field in batch)))
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, settings.clip)
                optimizer.step()
                optimizer.zero_grad()
                losses_S.append(loss.item())
            losses_ES.append(losses_S)
        return np.asarray(losses_ES).T

    return run


def peft_loss(model, rows: Rows):
    """Mean cross-entropy over the targets of one expert's rows [B, ...]."""
    index_T = torch.arange(rows.tokens.shape[-1], device=model.device)
    # Padding reads itself, because a query with no keys would give NaN.
    reads_BTT = (index_T[:, None] >= index_T) & (index_T[:, None] < rows.ends[:, None, :])
    mask_BTT = reads_BTT | (index_T[:, None] == index_T)
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


def operations(config: ModelConfig, batches: Sequence[Rows]) -> float:
    """Those that the model needs to train on the batches, forward and backward through the frozen base."""
    tokens = sum(int((batch.ends > 0).sum()) for batch in batches)
    targets = sum(int(batch.weights.sum()) for batch in batches)
    # Key j is read by the queries from j up to its end.
    pairs = sum(
        int(np.where(batch.ends > 0, batch.ends - np.arange(batch.ends.shape[-1]), 0).sum()) for batch in batches
    )
    return flops(config, tokens, targets, pairs)


def speed(config: ModelConfig, batches: Sequence[Rows], seconds: float, matrix: int) -> dict[str, float]:
    """Operations per second of training on the batches in so many seconds, and their share of the peak in bfloat16.

    The peak is that of one product of two square matrices with `matrix` rows.
    """
    found = operations(config, batches) / seconds
    return {"model_flops": found, "share_of_peak": found / measuring.matmul_peak(jnp.bfloat16, matrix)}


def compare(runs: Mapping[str, Run], tokens: int, repeats: int, operations: float, peak: float) -> dict:
    """Measurements of the sides, which run in turn, `repeats` times after one run that is not counted.

    Args:
      tokens: number of tokens in one run of a side.
      operations: those that the model needs in one run. peak: operations per second of the device.
    """
    losses = {side: run() for side, run in runs.items()}
    seconds = measuring.in_turn(runs, repeats)
    found = measuring.rates(seconds, tokens)
    for side in runs:
        found[side]["share_of_peak"] = operations * found[side]["per_second"] / tokens / peak
        found[side] |= {"loss_first_step": losses[side][0].tolist(), "loss_last_step": losses[side][-1].tolist()}
    ours, theirs = (losses[side] for side in SIDES)
    return found | {
        "ratio": measuring.ratio(seconds, "modjax", over="peft"),
        "peak_flops": peak,
        "loss_difference_first_step": float(np.abs(ours[0] - theirs[0]).max()),
        "loss_difference_last_step": float(np.abs(ours[-1] - theirs[-1]).max()),
    }


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--experts", type=int, default=8, help="E")
    parser.add_argument("--batch", type=int, default=1, help="B, rows per expert and step")
    parser.add_argument("--length", type=int, default=256, help="T, tokens per row")
    parser.add_argument("--steps", type=int, default=2, help="steps per run")
    parser.add_argument("--remat", action="store_true", help="modjax recomputes activations: less memory, slower")
    parser.add_argument("--micro", type=int, default=0, help="rows whose activations modjax holds at a time; 0: all")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="skip the two memory runs")
    parser.add_argument("--memory-of", choices=SIDES, help="only print the peak memory of this side in MiB")
    args = parser.parse_args(argv)
    if args.small:
        args.experts, args.length = min(args.experts, 3), min(args.length, 128)
    return args


def main():
    args = arguments()
    # Child processes run first, while this process is small and idle.
    memory = {}
    if args.memory and not args.memory_of:
        memory = {side: measuring.of_child(f"--memory-of={side}") for side in SIDES}
    settings = Settings(
        steps=args.steps,
        batch=args.batch,
        length=args.length,
        micro=args.micro,
        remat=args.remat,
        dropout=0.0,
    )
    batches = open48_batches(args.experts, settings)
    with tempfile.TemporaryDirectory() as folder:
        path = peer.path(args, folder)
        config = gguf.config(path) if path.is_file() else hf.config(path)
        given = initial_factors(config, args.experts, settings), settings, batches
        builds = {
            "modjax": lambda: modjax_side(modjax.load(path, dtype=jnp.float32).params, *given),
            "peft": lambda: peft_side(peer.base(path), *given),
        }
        if args.memory_of:
            return print(json.dumps(measuring.peak_memory(builds[args.memory_of])))
        runs = {side: build() for side, build in builds.items()}
        tokens = sum(int((batch.ends > 0).sum()) for batch in batches)
        found = compare(runs, tokens, args.repeats, operations(config, batches), measuring.matmul_peak(jnp.float32))
    sizes = {key: getattr(args, key) for key in ("experts", "batch", "length", "steps", "micro", "remat", "small")}
    measuring.report(sizes | {"tokens_per_run": tokens} | found | {"peak_memory_mib": memory}, PACKAGES, args.out)


if __name__ == "__main__":
    main()
