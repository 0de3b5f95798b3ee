"""Arrow in two stages over a library of thousands of experts that stays in its files: memory, time, recall.

    python benchmarks/large_library.py --folder=FOLDER --out=benchmarks/results/NAME.json

The library has 10,000 synthetic experts of rank 4 on q and o of SmolLM2-135M, in float32. Each belongs to one of the
48 tasks of open48. The direction that it amplifies most is, at each site and layer, a sum of three unit vectors: the
mean input of all tasks, the mean input of its own task beyond that, and a random combination of its task's inputs, with
squares 0.5, 0.25 and 0.25. So two experts have |cos| 0.5 or more; the 16 trained experts of the demo have 0.56 to 0.70
on average. The library is written to FOLDER, 10.4 GiB, and is used again if it is there.

Measured are, each in a process of its own:

    make      opening for the first time: seconds for the prototypes of all experts, peak memory
    paged     opening again, and answers in two stages: seconds, peak memory, experts read from files
    recall    with the inputs of the base model, the weight of Arrow over all experts that is on the candidates of a
              prompt: at the tokens of the prompt, and at those of its answer. "arrow" are the candidates of
              `modjax.routing.two_stage`; others go by Arrow's weights in every third layer, by the sum of |x . p|, or
              by |mean x . p|. "alignment" is the largest |x . p| among the candidates over that among all experts, at
              the tokens of the answer; "random" are as many experts chosen at random
    search    seconds to score one prompt of 64 tokens: the base alone, with the scores, and their matrix products alone
    loaded    the first 500 experts in memory, with Arrow over all of them, against two stages: seconds, loss, and
              the weight, in the routed model and at the tokens of the answer, that is on the candidates
"""

import functools
import json
import pathlib
from collections.abc import Iterator

import measuring
import numpy as np

SITES = ("attn.q", "attn.o")
SHARES = (0.5, 0.25, 0.25)  # squares of the parts of a direction: of all tasks, of its task, of its own
LENGTH = 64  # tokens that every prompt is padded to
PACKAGES = ("numpy",)


class Work:
    """The model, the tasks, and the examples that are measured."""

    def __init__(self, args):
        import modjax
        from modjax.routing import PromptRows

        self.args, self.tasks = args, modjax.data.load("open48")
        self.model = _tiny() if args.small else modjax.load("smollm2-135m")
        names = list(self.tasks)[:: max(len(self.tasks) // args.prompts, 1)][: args.prompts]
        self.examples = [one for name in names for one in self.encoded(name, "test", 1)]
        self.prompts = [one.tokens[: one.n_prompt] for one in self.examples]
        self.rows = functools.partial(PromptRows.one_each, rows=1, columns=LENGTH)

    def encoded(self, name: str, split: str, count: int) -> list:
        from modjax.data import inputs

        task = self.tasks[name]
        return inputs.examples(self.model, task, task.split(split)[:count], LENGTH, "", "truncate")

    def paged(self, folder: pathlib.Path):
        import modjax

        return modjax.PagedLibrary.open(folder, cache=self.args.cache)

    @functools.cached_property
    def inputs(self):
        """tokens -> {site: float32[L,T,I]}, the inputs of the sites in the base model."""
        import jax

        def look(_, sites, x_BTI):
            return {site: x_BTI[0] for site in sites if site in SITES}

        seen = jax.jit(lambda decoder, rows: decoder.observe(look, *rows))
        return lambda tokens: {
            site: np.asarray(x_LTI)[:, : len(tokens)]
            for site, x_LTI in seen(self.model.params, self.rows([tokens])).items()
        }


def _tiny():
    import jax

    import modjax
    from modjax.models import gguf, gguf_tokenizer
    from modjax.models.config import ModelConfig
    from modjax.models.decoder import Decoder

    words = gguf_tokenizer.read(gguf.embedded())
    config = ModelConfig("llama", V=len(words), D=16, N=2, K=1, H=8, F=16, L=2, context=256, rope_dim=8)
    return modjax.Model("tiny", Decoder.init(config, jax.random.key(0)), words)


def experts(work: Work) -> Iterator:
    """The experts one by one, as adapters."""
    from modjax.experts.adapter import Adapter, Update
    from modjax.experts.info import ExpertInfo

    config, rank = work.model.config, work.args.rank
    seen = {name: [work.inputs(one.tokens) for one in work.encoded(name, "train", 2)] for name in work.tasks}
    seen = {name: {s: np.concatenate([x[s] for x in own], axis=1) for s in SITES} for name, own in seen.items()}
    common = {s: _unit(np.mean([own[s].mean(axis=1) for own in seen.values()], axis=0)) for s in SITES}
    for e in range(work.args.experts):
        rng, name = np.random.default_rng(e), list(seen)[e % len(seen)]
        updates = {}
        for site in SITES:
            x_LTI, (i, o) = seen[name][site], config.sites[site]
            own_LI = np.einsum("lti,t->li", x_LTI, rng.standard_normal(x_LTI.shape[1], np.float32))
            parts = (common[site], _beyond(x_LTI.mean(axis=1), common[site]), _beyond(own_LI, common[site]))
            a_LRI = rng.standard_normal((config.L, rank, i), np.float32) / i**0.5
            a_LRI[:, 0] = sum(share**0.5 * part for share, part in zip(SHARES, parts, strict=True))
            b_LRO = 0.02 * rng.standard_normal((config.L, rank, o), np.float32) / o**0.5
            b_LRO[:, 0] *= 5
            updates[site] = {layer: Update(a_LRI[layer], b_LRO[layer], 2.0) for layer in range(config.L)}
        yield Adapter(ExpertInfo(f"{name} {e}", (name,), rank, 2.0 * rank, family=config.family), updates)


def _unit(x_LI):
    return x_LI / np.linalg.norm(x_LI, axis=-1, keepdims=True)


def _beyond(x_LI, unit_LI):
    """The part of x at right angles to a unit vector, as a unit vector."""
    return _unit(x_LI - (x_LI * unit_LI).sum(axis=-1, keepdims=True) * unit_LI)


def write(work: Work, folder: pathlib.Path) -> dict:
    """Writes the library unless it is there, and tells its size."""
    from modjax.experts import store

    if not (folder / "library.json").exists():
        store.save(experts(work), work.model.config.L, folder)
    found = store.listed(folder)
    if len(found.entries) != work.args.experts:
        raise SystemExit(f"{folder}: has {len(found.entries)} experts; expected {work.args.experts}, or a new folder")
    files = [path.stat().st_size for path in folder.glob("*/adapter_model.safetensors")]
    return {"files_mib": sum(files) / 2**20}


def of_make(work: Work) -> dict:
    (work.args.folder / "prototypes.safetensors").unlink(missing_ok=True)
    before = measuring.resident("VmRSS")
    seconds, library = measuring.timed(lambda: work.paged(work.args.folder))
    size = (work.args.folder / "prototypes.safetensors").stat().st_size / 2**20
    return {"seconds": seconds, "peak_mib": measuring.resident("VmHWM") - before, "prototypes_mib": size}


def of_paged(work: Work) -> dict:
    """Answers to all prompts, one at a time; what the first one takes is compilation and is left out."""
    from modjax.routing import two_stage

    before = measuring.resident("VmRSS")
    opening, library = measuring.timed(lambda: work.paged(work.args.folder))
    router = two_stage(library, candidates=work.args.candidates)

    def answer(prompt):
        work.model.generate([prompt], library, router, max_new_tokens=8)

    answer(work.prompts[0])
    pages = work.model.bind(library, router).loras.pages
    start = pages.reads
    first = [measuring.timed(lambda prompt=prompt: answer(prompt))[0] for prompt in work.prompts[1:]]
    reads = pages.reads - start
    again = [measuring.timed(lambda prompt=prompt: answer(prompt))[0] for prompt in work.prompts[-4:]]
    base = [measuring.timed(lambda p=p: work.model.generate([p], max_new_tokens=8))[0] for p in work.prompts[-5:]][1:]
    return {
        "seconds_open": opening,
        "peak_mib": measuring.resident("VmHWM") - before,
        "seconds_a_prompt": float(np.median(first)),
        "seconds_a_prompt_without_reading": float(np.median(again)),
        "seconds_a_prompt_of_the_base": float(np.median(base)),
        "experts_read_a_prompt": reads / len(first),
    }


def of_recall(work: Work) -> dict:
    """Means over prompts: {tokens: {score: {C: share}}}, with {"alignment": {candidates: {C: ratio}}}."""
    from modjax.routing import two_stage

    library = work.paged(work.args.folder)
    router, decoder = two_stage(library, candidates=work.args.candidates), work.model.params
    prototypes = library.resident(decoder.embed[...].dtype, None).prototypes
    shares: dict = {}

    def add(kind, score, found):
        shares.setdefault(kind, {}).setdefault(score, []).append(found)

    for one, prompt in zip(work.examples, work.prompts, strict=True):
        weights = {
            kind: np.asarray(router.scores(decoder, prototypes, work.rows([tokens])))[0]
            for kind, tokens in (("prompt", prompt), ("both", one.tokens))
        }
        weights["answer"] = weights.pop("both") - weights["prompt"]
        seen = work.inputs(one.tokens)
        asked = {site: x_LTI[:, : len(prompt)] for site, x_LTI in seen.items()}
        for score, value_E in {"arrow": weights["prompt"], **_others(asked, prototypes)}.items():
            order_E = np.argsort(-value_E, kind="stable")
            for kind, weight_E in weights.items():
                add(kind, score, np.cumsum(weight_E[order_E])[np.asarray(work.args.counts) - 1] / weight_E.sum())
        answered = {site: x_LTI[:, len(prompt) :] for site, x_LTI in seen.items()}
        chosen = {
            "candidates": np.argsort(-weights["prompt"], kind="stable"),
            "random": np.random.default_rng(0).permutation(len(library)),
        }
        for kind, found in _alignment(answered, prototypes, chosen, work.args.counts).items():
            add("alignment", kind, found)
    return {
        kind: {
            score: dict(zip(map(str, work.args.counts), np.mean(found, axis=0).tolist(), strict=True))
            for score, found in own.items()
        }
        for kind, own in shares.items()
    }


def _alignment(x, prototypes, chosen, counts) -> dict[str, np.ndarray]:
    """The largest |x . p| among the first C experts over that among all, float[C]: means of tokens, sites, layers."""
    ratios = {name: [] for name in chosen}
    for site, x_LTI in x.items():
        for layer, x_TI in enumerate(x_LTI):
            score_TE = np.abs(x_TI @ np.asarray(prototypes[site][layer]).T)
            most_T = score_TE.max(axis=1)
            for name, order_E in chosen.items():
                ratios[name].append([(score_TE[:, order_E[:count]].max(axis=1) / most_T).mean() for count in counts])
    return {name: np.mean(own, axis=0) for name, own in ratios.items()}


def _others(x, prototypes) -> dict[str, np.ndarray]:
    """Other scores of a prompt, {score: float32[E]}."""
    found = {name: 0.0 for name in ("sum of |x.p|", "|mean x.p|", "arrow, every third layer")}
    for site, x_LTI in x.items():
        for layer, x_TI in enumerate(x_LTI):
            score_TE = x_TI @ np.asarray(prototypes[site][layer]).T
            found["|mean x.p|"] += np.abs(score_TE.mean(axis=0))
            score_TE = np.abs(score_TE)
            found["sum of |x.p|"] += score_TE.sum(axis=0)
            if layer % 3 == 1:
                found["arrow, every third layer"] += _weights(score_TE)
    return found


def _weights(score_TE: np.ndarray, top_k: int = 4) -> np.ndarray:
    """float32[E], the softmax of each token's largest scores, summed over tokens."""
    ids_Tk = np.argpartition(-score_TE, top_k, axis=1)[:, :top_k]
    top_Tk = np.take_along_axis(score_TE, ids_Tk, axis=1)
    share_Tk = np.exp(top_Tk - top_Tk.max(axis=1, keepdims=True))
    return np.bincount(ids_Tk.ravel(), (share_Tk / share_Tk.sum(axis=1, keepdims=True)).ravel(), score_TE.shape[1])


def of_search(work: Work) -> dict:
    import jax
    import jax.numpy as jnp

    from modjax.routing import two_stage

    library = work.paged(work.args.folder)
    router, decoder = two_stage(library, candidates=work.args.candidates), work.model.params
    prototypes = library.resident(decoder.embed[...].dtype, None).prototypes
    rows = work.rows([np.resize(work.prompts[0], LENGTH)])
    x = {site: jnp.asarray(x_LTI) for site, x_LTI in work.inputs(np.asarray(rows.tokens_BT[0])).items()}

    @jax.jit
    def products(x, prototypes):
        def layer(total_E, scanned):
            x, prototypes = scanned
            return total_E + sum(jnp.abs(x[s] @ prototypes[s].T).max(axis=0) for s in x), None

        return jax.lax.scan(layer, jnp.zeros(len(library)), (x, prototypes))[0]

    base = jax.jit(lambda decoder, rows: decoder(*rows))
    runs = {
        "base": lambda: base(decoder, rows).block_until_ready(),
        "base_and_scores": lambda: np.asarray(router.scores(decoder, prototypes, rows)),
        "products": lambda: products(x, prototypes).block_until_ready(),
    }
    for run in runs.values():
        run()
    seconds = measuring.in_turn(runs, work.args.repeats)
    return {"tokens": LENGTH, "seconds": {side: float(np.median(own)) for side, own in seconds.items()}}


def of_loaded(work: Work) -> dict:
    """Arrow over all of a part of the library, against two stages over the same experts."""
    import modjax
    from modjax.eval import Method
    from modjax.eval.likelihood import target_loss
    from modjax.eval.traces import routing_weights
    from modjax.routing import arrow, two_stage

    folder = work.args.folder.with_name(f"{work.args.folder.name}-{work.args.loaded}")
    if not (folder / "library.json").exists():
        work.paged(work.args.folder)[: work.args.loaded].save(folder)
    seconds, library = measuring.timed(lambda: modjax.Library.load(folder))
    router, paged = arrow(library), work.paged(folder)
    found = {"experts": len(library), "seconds_load": seconds}
    both = {"loaded": (library, router), "two_stages": (paged, two_stage(paged, candidates=work.args.candidates))}
    bound = {side: work.model.bind(*own) for side, own in both.items()}
    runs = {side: functools.partial(target_loss, work.model, work.examples[:1], own) for side, own in bound.items()}
    for run in runs.values():
        run()
    found["seconds_a_prompt"] = {k: float(np.median(v)) for k, v in measuring.in_turn(runs, work.args.repeats).items()}

    def loss(bound):
        nats, tokens = target_loss(work.model, work.examples, bound)
        return float(nats.sum() / tokens.sum())

    counts = [count for count in work.args.counts if count <= min(work.args.cache, len(library))]
    found["loss"] = {"base": loss(None), "loaded": loss(bound["loaded"])} | {
        str(count): loss(work.model.bind(paged, two_stage(paged, candidates=count))) for count in counts
    }
    weights = routing_weights(work.model, Method("all", library, router), work.examples)
    scores = [
        np.asarray(both["two_stages"][1].scores(work.model.params, bound["two_stages"].loras.prototypes, rows))[0]
        for rows in (work.rows([prompt]) for prompt in work.prompts)
    ]
    answers = [w[:, len(p) :].sum(axis=(0, 1)) for w, p in zip(weights, work.prompts, strict=True)]
    shares = [np.cumsum(w[np.argsort(-s)]) / w.sum() for w, s in zip(answers, scores, strict=True)]
    found["answer"] = {str(count): float(np.mean([own[count - 1] for own in shares])) for count in counts}
    return found


MEASURED = {"make": of_make, "paged": of_paged, "recall": of_recall, "search": of_search, "loaded": of_loaded}


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where the library is, or is written")
    parser.add_argument("--experts", type=int, default=10_000, help="E")
    parser.add_argument("--rank", type=int, default=4, help="R")
    parser.add_argument("--loaded", type=int, default=500, help="experts that are also loaded into memory")
    parser.add_argument("--cache", type=int, default=256, help="experts of the paged library in memory")
    parser.add_argument("--candidates", type=int, default=32, help="C, where it is not varied")
    parser.add_argument("--counts", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256], help="C, where it is")
    parser.add_argument("--prompts", type=int, default=24, help="test prompts, one of a task each")
    parser.add_argument("--part", choices=MEASURED, help="measure only this part and print it")
    args = parser.parse_args(argv)
    if args.small:
        args.experts, args.loaded, args.cache, args.candidates, args.counts, args.prompts = 60, 20, 16, 4, [4, 8], 5
    return args


def main() -> None:
    args = arguments()
    if args.part:
        work = Work(args)
        print(json.dumps({"prompts": len(work.examples)} | MEASURED[args.part](work)))
        return
    sizes = {key: getattr(args, key) for key in ("experts", "rank", "cache", "candidates", "small")}
    figures = sizes | {"sites": SITES} | write(Work(args), args.folder)
    measuring.report(figures | {part: measuring.of_child(f"--part={part}") for part in MEASURED}, PACKAGES, args.out)


if __name__ == "__main__":
    main()
