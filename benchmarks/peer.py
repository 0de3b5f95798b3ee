"""The other side of the benchmarks: the same model in transformers, with the same LoRA experts in peft."""

import argparse
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import measuring
import numpy as np
import ours
import peft
import torch
import transformers

from modjax.experts.places import paths
from modjax.models import gguf
from modjax.ops.lora import Factors
from modjax.train.settings import Settings

torch.set_num_threads(measuring.cores())


def base(path: pathlib.Path) -> transformers.PreTrainedModel:
    """The model of a folder or a GGUF file, in float32 and with transformers' default attention."""
    file = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    folder = path.parent if file else path
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **file).eval()


def path(args: argparse.Namespace, folder: str) -> pathlib.Path:
    """The path of the model: the embedded SmolLM2-135M, or with --small a tiny random one, written to the folder."""
    if not args.small:
        return gguf.embedded()
    return tiny(pathlib.Path(folder))


def tiny(folder: pathlib.Path) -> pathlib.Path:
    """The folder, with a random llama of 100,000 numbers beyond its embedding and the vocabulary of SmolLM2."""
    config = transformers.LlamaConfig(
        vocab_size=49_152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).float().save_pretrained(folder)
    return folder


def wait() -> None:
    """Waits until the device has done all that was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_mib(run: Callable[[], Any]) -> float | None:
    """The most memory of the GPU that torch holds during a call, in MiB; None without a GPU."""
    if not torch.cuda.is_available():
        run()
        return None
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() / 2**20


def random(config: dict[str, Any]) -> transformers.PreTrainedModel:
    """The model of a config.json with random weights in bfloat16, on the GPU if there is one."""
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        chosen = transformers.AutoConfig.for_model(**config)
        return transformers.AutoModelForCausalLM.from_config(chosen, dtype=torch.bfloat16).eval()


def with_experts(model: transformers.PreTrainedModel, settings: Settings, names: list[str]) -> peft.PeftModel:
    """The model with one adapter per name, ready for training."""
    modules = paths(model.config.model_type)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=[modules[site].rpartition(".")[2] for site in settings.sites],
    )
    model = peft.get_peft_model(model, config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    return model.train()


def put(model: peft.PeftModel, name: str, factors: Mapping[str, Factors], expert: int) -> None:
    """Sets one adapter to the factors of one expert, {site: Factors(a[L,E,R,I], b[L,E,R,O])}."""
    base, modules = model.get_base_model(), paths(model.config.model_type)
    with torch.no_grad():
        for site, (a_LERI, b_LERO) in factors.items():
            for layer in range(len(a_LERI)):
                linear = base.get_submodule(modules[site].format(i=layer))
                linear.lora_A[name].weight.copy_(torch.tensor(np.asarray(a_LERI[layer, expert])))
                linear.lora_B[name].weight.copy_(torch.tensor(np.asarray(b_LERO[layer, expert].T)))


def with_arrow(model: transformers.PreTrainedModel, library: pathlib.Path, top_k: int) -> peft.PeftModel:
    """The model with peft's Arrow over the adapters of a library that modjax wrote."""
    adapters = sorted(str(path.parent) for path in library.glob("*/adapter_config.json"))
    return peft.create_arrow_model(model, adapters, peft.ArrowConfig(top_k=top_k)).eval()


class Side:
    """A model of transformers, or of peft with routed experts."""

    def __init__(self, model):
        self.model = model

    def prefill(self, tokens_BT: np.ndarray) -> np.ndarray:
        """The logits after the last token of each row."""
        with torch.no_grad():
            tokens_BT = torch.as_tensor(tokens_BT, device=self.model.device).long()
            return self.model(tokens_BT, use_cache=False, logits_to_keep=1).logits[:, 0].float().cpu().numpy()

    def decode(self, tokens_BT: np.ndarray, new: int, cache: str | None = None) -> list[str]:
        """The `new` tokens after each row. cache: "static" or None, the dynamic one."""
        tokens_BT = torch.as_tensor(tokens_BT, device=self.model.device).long()
        answers = self.model.generate(
            input_ids=tokens_BT,
            attention_mask=torch.ones_like(tokens_BT),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            cache_implementation=cache,
            pad_token_id=0,
            eos_token_id=None,
        )
        return [ours.Numbers().decode(answer) for answer in answers[:, tokens_BT.shape[1] :].tolist()]
