"""The part of `modjax evaluate` that runs the tasks of lm-evaluation-harness; see configs/harness.py."""

import json
from typing import Any

import jax

from modjax import arguments
from modjax.cli import build, session
from modjax.errors import InputError, suggestion
from modjax.files import write_json
from modjax.parallel.distributed import from_first
from modjax.studies import methods


def run(config, workdir) -> None:
    """Writes WORKDIR/results.json, in the form of lm-eval with the method beside it, and samples_TASK.json."""
    from modjax.eval.harness import Harness, lm_eval  # first of all, for its words where lm-eval is missing

    line, experiment = build.method(config), build.experiment(config, workdir)
    methods.check(line, experiment, "config.method")
    options = config.harness
    names, manager = _tasks(options)
    folder = session.enter(workdir, config)
    session.bind(folder, methods.made_of(line, experiment) | experiment.made_of(), "results.json")
    method = methods.make(line.get("router", {"name": "base"})["name"], line, experiment)
    given = options.batch, options.max_length, options.max_gen_toks, options.seed
    found = lm_eval.simple_evaluate(
        Harness(experiment.model, method.library, method.router, *given),
        tasks=names,
        num_fewshot=options.num_fewshot,
        limit=options.limit or None,
        # What was answered is kept, for a run that goes on. Processes that had kept different answers would wait for
        # each other, so that several keep none.
        use_cache=str(folder / "answers") if jax.process_count() == 1 else None,
        task_manager=manager,
        apply_chat_template=options.chat,
        system_instruction=options.system,
        bootstrap_iters=options.bootstrap,
    )
    from_first(lambda: _leave(found, {"name": method.name, **line}, folder))


def _tasks(options) -> tuple[list[str], Any]:
    """The names of the tasks, and lm-eval's manager that knows them.

    Raises InputError for no names, for unknown ones, and for a folder of task files that does not exist.
    """
    from lm_eval.tasks import TaskManager

    names = list(arguments.texts("config.harness.tasks", options.tasks))
    if not names:
        raise InputError("config.harness.tasks is empty; expected names of tasks of lm-eval, such as arc_easy")
    folder = options.include_path or None
    if folder and not from_first(arguments.path("config.harness.include_path", folder).is_dir):
        raise InputError(f"config.harness.include_path = {folder!r}; expected a folder of task files of lm-eval")
    manager = TaskManager(include_path=folder, include_defaults=False)
    if not all(manager.match_tasks([name]) for name in names):
        manager = TaskManager(include_path=folder)  # reads the thousands of files of lm-eval's own tasks
    for name in names:
        if not manager.match_tasks([name]):
            raise InputError(f"config.harness.tasks: unknown task {name!r}; {suggestion(name, manager.all_tasks)}")
    return names, manager


def _leave(found, method, folder) -> None:
    from lm_eval.utils import handle_non_serializable, make_table

    for task, samples in found.pop("samples").items():
        write_json(folder / f"samples_{task}.json", _plain(samples, handle_non_serializable))
    write_json(folder / "results.json", _plain(found | {"method": method}, handle_non_serializable))
    print(make_table(found))


def _plain(value, other) -> Any:
    return json.loads(json.dumps(value, default=other))
