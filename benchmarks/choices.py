"""Questions per second when the choices of multiple-choice questions are scored by their likelihood.

    python benchmarks/choices.py --out=benchmarks/results/NAME.json

The loss of each choice after its question is summed over the choice's tokens. modjax reads a question once for all its
choices. transformers reads one row per choice, in padded batches of similar length, and takes the log-softmax of all
logits, as evaluation harnesses do. Token ids are random; the lengths are like those of HellaSwag in tokens: questions
13 to 47 (mean 30), choices 5 to 28 (mean 14). Both sides must give the same losses.
"""

import tempfile

import jax.numpy as jnp
import measuring
import numpy as np
import ours
import peer
import torch

import modjax
from modjax.data.tokenize import Encoded
from modjax.eval.likelihood import target_loss

PACKAGES = ("flax", "torch", "transformers", "numpy")
QUESTION, CHOICE = (13, 29, 47), (5, 10, 28)  # shortest, most frequent, longest


def choices(args) -> list[Encoded]:
    """The choices of all questions, each with its question as prompt; those of one question follow each other."""
    rng = np.random.default_rng(0)

    def tokens(lengths):
        return rng.integers(100, ours.VOCABULARY, round(rng.triangular(*lengths)), np.int32)

    found = []
    for _ in range(args.questions):
        question = tokens(QUESTION)
        found += [Encoded(np.append(question, tokens(CHOICE)), len(question)) for _ in range(args.choices)]
    return found


def likelihoods(model: modjax.Model, examples: list[Encoded], batch: int):
    """A function that gives the loss of every choice, float64[n]."""
    return lambda: target_loss(model, examples, batch=batch)[0]


def padded_likelihoods(model, examples: list[Encoded], batch: int):
    """The same with transformers: one padded row per choice."""

    order = sorted(range(len(examples)), key=lambda i: len(examples[i].tokens), reverse=True)

    @torch.no_grad()
    def run():
        losses = np.zeros(len(examples))
        for start in range(0, len(order), batch):
            ids = order[start : start + batch]
            tokens_BT = torch.zeros(len(ids), len(examples[ids[0]].tokens), dtype=torch.long)
            mask_BT = torch.zeros_like(tokens_BT)
            for row, i in enumerate(ids):
                n = len(examples[i].tokens)
                tokens_BT[row, :n], mask_BT[row, :n] = torch.as_tensor(examples[i].tokens), 1
            tokens_BT, mask_BT = tokens_BT.to(model.device), mask_BT.to(model.device)
            logs_BTV = torch.log_softmax(model(tokens_BT, attention_mask=mask_BT, use_cache=False).logits, dim=-1)
            for row, i in enumerate(ids):
                at = torch.arange(examples[i].n_prompt, len(examples[i].tokens))
                losses[i] = -logs_BTV[row, at - 1, tokens_BT[row, at]].sum().item()
        return losses

    return run


def compared(runs, questions: int, repeats: int) -> dict:
    """Questions per second of both sides, their ratio, and the largest difference of two losses."""
    losses = {side: run() for side, run in runs.items()}
    seconds = measuring.in_turn(runs, repeats)
    return {
        **measuring.rates(seconds, questions),
        "ratio": measuring.ratio(seconds, "modjax", over="transformers"),
        "mean_loss_of_a_choice": float(losses["modjax"].mean()),
        "largest_difference": float(np.abs(losses["modjax"] - losses["transformers"]).max()),
    }


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--choices", type=int, default=4, help="per question")
    parser.add_argument("--batch", type=int, default=32, help="rows computed at once, on both sides")
    args = parser.parse_args(argv)
    if args.small:
        args.questions = 3
    return args


def main():

    args = arguments()
    examples = choices(args)
    with tempfile.TemporaryDirectory() as folder:
        path = peer.path(args, folder)
        runs = {
            "modjax": likelihoods(modjax.load(path, dtype=jnp.float32), examples, args.batch),
            "transformers": padded_likelihoods(peer.base(path), examples, args.batch),
        }
        found = compared(runs, args.questions, args.repeats)
    sizes = {key: getattr(args, key) for key in ("questions", "choices", "batch", "small")}
    measuring.report(sizes | {"tokens": sum(len(one.tokens) for one in examples)} | found, PACKAGES, args.out)


if __name__ == "__main__":
    main()
