"""The supported model families: one Family for each model_type of a config.json."""

from modjax.models.families.cohere import COHERE, COHERE2
from modjax.models.families.gemma import GEMMA, GEMMA2, GEMMA3_TEXT
from modjax.models.families.gpt import GPT2, GPT_NEO, GPT_NEOX
from modjax.models.families.llama import GRANITE, LLAMA, MINISTRAL3, MISTRAL, SMOLLM3
from modjax.models.families.olmo import OLMO, OLMO2, OLMO3
from modjax.models.families.phi import PHI, PHI3
from modjax.models.families.qwen import QWEN2, QWEN3
from modjax.models.families.stablelm import STABLELM, STARCODER2

FAMILIES = {
    "llama": LLAMA,
    "mistral": MISTRAL,
    "ministral3": MINISTRAL3,
    "smollm3": SMOLLM3,
    "granite": GRANITE,
    "phi": PHI,
    "phi3": PHI3,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gpt_neox": GPT_NEOX,
    "gpt_neo": GPT_NEO,
    "gpt2": GPT2,
    "olmo": OLMO,
    "olmo2": OLMO2,
    "olmo3": OLMO3,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3_TEXT,
    "stablelm": STABLELM,
    "starcoder2": STARCODER2,
    "cohere": COHERE,
    "cohere2": COHERE2,
}
