"""Adapters that LoRA factors cannot represent, told by their adapter_config.json; the rules are those of peft 0.21."""

from collections.abc import Mapping
from typing import Any

from modjax.errors import InputError

# Methods and settings whose updates PEFT converts to LoRA factors; at full rank the converted model is the same.
_TYPES = "C3A DELORA FOURIERFT GRALORA LOHA LOKR MISS PSOFT RANDLORA TINYLORA UNILORA VBLORA VERA WAVEFT"
CONVERTED_TYPES = tuple(_TYPES.split())
CONVERTED_SETTINGS = ("monteclora_config", "use_qalora")
CONVERSION = "PEFT can convert it: peft.save_as_lora(NEW_DIR, PeftModel.from_pretrained(BASE, DIR), rank=RANK)"
# Settings that change an adapter in ways that LoRA factors cannot represent, and their values without effect.
SETTINGS = {
    "use_dora": False,
    "bias": "none",
    "lora_bias": False,
    "modules_to_save": None,
    "trainable_token_indices": None,
    "target_parameters": None,
    "layer_replication": None,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "kasa_config": None,
    "monteclora_config": None,
    "use_bdlora": None,
    "use_qalora": False,
    "megatron_config": None,
    "enable_lora": None,  # of peft 0.1
}
# Values of init_lora_weights, besides true and false, that leave the base weights as they are.
STARTS = ("gaussian", "eva", "orthogonal", "mica")
# Prefixes of those that subtract the adapter's initial product from the base weights.
RESIDUAL = ("pissa", "corda", "olora", "loftq", "lora_ga", "lora-ga")


def refuse(config: Mapping[str, Any], where: str) -> None:
    """Raises InputError for an adapter that is more than LoRA factors; where: the path of its config, for messages."""
    _refuse_type(config, where)
    for key, plain in SETTINGS.items():
        value = config.get(key, plain)
        if value != plain and (value or plain):
            hint = f". {CONVERSION}" if key in CONVERTED_SETTINGS else ""
            raise InputError(
                f"{where}: {key} = {value!r} cannot be represented by LoRA factors; expected {plain!r}{hint}"
            )
    _refuse_start(config.get("init_lora_weights"), where)


def _refuse_type(config, where):
    kind = config.get("peft_type")
    if kind == "LORA":
        return
    if kind is None and ("lora_parameters" in config or "fine_tune_type" in config):
        raise InputError(
            f"{where}: is an adapter of mlx-lm; expected one of PEFT. Its factors are those of PEFT transposed: write "
            "lora_A.weight = lora_a.T, lora_B.weight = lora_b.T and lora_alpha = scale * rank; or fold it into its "
            "base with mlx_lm.fuse and load that as a model"
        )
    if kind is None and "model_class" in config:
        raise InputError(f"{where}: is an adapter of AdapterHub's library; expected one of PEFT, peft_type 'LORA'")
    hint = f". {CONVERSION}" if kind in CONVERTED_TYPES else ""
    raise InputError(f"{where}: peft_type {kind!r}; expected 'LORA'{hint}")


def _refuse_start(start, where):
    if not isinstance(start, str) or start.lower() in STARTS:
        return
    if start.lower().startswith(RESIDUAL):
        raise InputError(
            f"{where}: init_lora_weights = {start!r}: the factors need base weights from which their initial product "
            "was subtracted. Convert the adapter with PEFT: save_pretrained(DIR, "
            "path_initial_model_for_weight_conversion=START)"
        )
    raise InputError(
        f"{where}: init_lora_weights = {start!r:.80}: may have changed the base weights; expected true, false or one "
        f"of {', '.join(STARTS)}"
    )
