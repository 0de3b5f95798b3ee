"""`modjax convert`: experts and models from one file format to another.

PEFT adapter folders, mttl checkpoints, libraries     -> one library, which is a folder of PEFT adapters
a GGUF file, a Hugging Face directory or id           -> a Hugging Face directory
such a model, and a library of one or with --weights  -> a Hugging Face directory with the experts folded in
"""

import os
import pathlib
import shutil
from typing import Any

from absl.flags import DEFINE_integer, DEFINE_list, DEFINE_multi_string, DEFINE_string, FlagValues

from modjax import arguments, digest
from modjax.cli import session
from modjax.errors import InputError
from modjax.experts import depth, mttl, peft, store, weights_file
from modjax.experts import index as index_file
from modjax.experts.depth import Depth
from modjax.experts.forms import form_of
from modjax.experts.library import Library
from modjax.files import os_errors, read_json, read_json_object, replaceable, write_json
from modjax.model import EMBEDDED, Model, load
from modjax.models import hf
from modjax.models.export import FORMATS

NEEDS = ("from", "to")  # flags that must be given
EXAMPLE = "modjax convert --from=ADAPTER_DIR --from=OTHER_DIR --to=workdir/mine"
RECORD = "convert.json"


def define_flags(values: FlagValues) -> None:
    DEFINE_multi_string("from", None, "PEFT or mttl folders or files, libraries, one model", values)
    DEFINE_string("to", None, "the folder to write, new or empty", values)
    DEFINE_multi_string("only", [], "the name of an expert to convert; by default all", values)
    DEFINE_list("weights", [], "the weights of experts that are folded into a model, separated by commas", values)
    DEFINE_string("mix", None, "mix of the folded experts: parameters (the default) or outputs", values)
    DEFINE_string("dtype", None, "float32, float16 or bfloat16; by default that of the source", values)
    text = "the number of layers of the experts' base model; by default that of the model, if it is on this machine"
    DEFINE_integer("layers", None, text, flag_values=values)


@session.first_alone
def run(config, workdir, flags) -> None:
    """Writes the folder --to from all that --from names: under a temporary name, renamed when it is complete.

    Nothing is overwritten: the folder must be new or empty, or the result of the same command.

    A PEFT adapter is named after its folder; after the folder above, if its own has a general name such as adapter,
    output or checkpoint-500; and by more of its path if another adapter has the same name.
    """
    with os_errors(flags.to, "written"):
        target = replaceable(arguments.path("--to", flags.to))
    record = {name: getattr(flags, name) for name in ("from", "only", "weights", "mix", "dtype", "layers")}
    record["content"] = {source: digest.of_large(pathlib.Path(source)) for source in getattr(flags, "from")}
    if _is_done(target, record):
        print(f"{flags.to}: complete")
        return
    draft = target.with_name(target.name + ".converting")
    shutil.rmtree(draft, ignore_errors=True)
    made = _converted(flags, draft)
    with os_errors(target, "written"):
        write_json(draft / RECORD, record)
        os.replace(draft, target)
    print(f"{flags.to}: {made}")


def _is_done(target, record) -> bool:
    had = read_json(target / RECORD) if (target / RECORD).is_file() else None
    if had == record:
        return True
    if isinstance(had, dict) and {**had, "content": record["content"]} == record:
        raise InputError(f"{target}: was made when --from held other files; expected --to=FOLDER, new or empty")
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target}: exists; expected --to=FOLDER, new or empty")
    return False


def _converted(flags, draft) -> str:
    """Writes the draft; returns what it is, for the message."""
    if flags.dtype not in (None, *FORMATS):
        raise InputError(f"--dtype={flags.dtype}: expected one of {', '.join(FORMATS)}")
    forms = [(_form(source), source) for source in getattr(flags, "from")]
    experts = {form: [source for own, source in forms if own == form] for form in READERS}
    models = [source for form, source in forms if form == "model"]
    if len(models) > 1:
        raise InputError(f"--from names two models, {models[0]} and {models[1]}; expected at most one")
    folds = any(experts.values()) and any(models)
    if not folds and (flags.weights or flags.mix):
        raise InputError("--weights and --mix fold experts into a model; --from does not name both")
    if models and flags.layers is not None:
        raise InputError("--layers is for a library of experts; --from names a model, whose layers are known")
    if models:
        return _write_model(models[0], experts if folds else None, flags, draft)
    library, source = _library(experts, flags.only, flags.layers)
    in_dtype(library, flags.dtype).save(draft)
    return f"library of {len(library)} experts for {library.layers} layers, {source}"


def _form(source: str) -> str:
    """The form of a source: a key of READERS, or "model"."""
    path = pathlib.Path(source)
    if path.is_file() and path.name in (peft.CONFIG, *weights_file.NAMES):
        return "peft"
    if path.is_file() and path.suffix != ".gguf":
        return "mttl"
    return form_of(path) or "model"


READERS = {
    "library": lambda paths: [adapter for path in paths for adapter in store.load(path)[0]],
    "peft": peft.read,
    "mttl": mttl.read,
}


def _library(experts, only, layers=None) -> tuple[Library, str]:
    """The experts of all sources, form by form, and where their number of layers comes from.

    Only those named in `only` if any are.
    """
    adapters = [adapter for form, paths in experts.items() if paths for adapter in READERS[form](paths)]
    found = _depth(adapters, experts["library"], layers)
    library = Library.of(adapters, found.layers)
    return library[only] if only else library, found.source


def _depth(adapters, libraries, layers) -> Depth:
    """As `depth.of`; or that of a library among the sources, which may be for more layers."""
    found = depth.of(adapters, layers)
    saved = {index_file.read(pathlib.Path(path)).layers: path for path in libraries}
    if layers is not None or not saved or max(saved) < found.layers:
        return found
    if len(saved) > 1:
        listed = " and ".join(f"{path} ({count} layers)" for count, path in saved.items())
        raise InputError(f"--from names libraries for different models, {listed}; if they are for one, give --layers=N")
    return Depth(max(saved), f"as the library {saved[max(saved)]!r} has")


def in_dtype(library: Library, dtype: str | None) -> Library:
    """The library with its factors rounded to a dtype, which its files will have; None changes nothing.

    Raises InputError naming the expert whose factors overflow the dtype.
    """
    if dtype is None:
        return library
    return Library.of([adapter.in_dtype(dtype) for adapter in library.adapters()], library.layers)


def _write_model(name, experts, flags, draft) -> str:
    stored = _stored_dtype(name)
    model = load(name, dtype=stored)
    if experts:
        model = _folded(model, _library(experts, flags.only, model.config.L)[0], flags)
    elif flags.only:
        raise InputError("--only chooses among experts; --from names none")
    model.save(draft, flags.dtype)
    return f"{model.config.family} model in {flags.dtype or stored}"


def _folded(model: Model, library: Library, flags: Any) -> Model:
    try:
        weights = [float(one) for one in flags.weights] if flags.weights else None
    except ValueError as error:
        raise InputError(f"--weights={','.join(flags.weights)}: expected numbers, one per expert") from error
    return model.fold(library, weights, flags.mix or "parameters")


def _stored_dtype(name: str) -> str:
    """The dtype in a model's config.json; float32 for the dequantised weights of a GGUF file."""
    if name == EMBEDDED or name.endswith(".gguf"):
        return "float32"
    found = read_json_object(hf.find(name) / "config.json")
    named = found.get("dtype", found.get("torch_dtype"))
    return named if named in FORMATS else "float32"
