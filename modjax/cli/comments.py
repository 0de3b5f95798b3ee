"""Comments in config files: the text after a key's value explains the key."""

import ast
import io
import pathlib
import tokenize
from collections import Counter


def comments(path: pathlib.Path) -> dict[str, str]:
    """{key: comment} of a config file and of the neighbours it imports.

    Read are the entries of ConfigDict({...}), assignments to config.KEY, and the fields of classes, each by its own
    line; lines with several values are left out.
    """
    with tokenize.open(path) as file:
        text = file.read()
    said = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    found, values = {}, {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            neighbour = path.with_name(f"{module}.py")
            found |= comments(neighbour) if neighbour.is_file() else {}
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Call):
            values |= _values(node)
    used = Counter(values.values())
    return found | {key: said[line] for key, line in values.items() if line in said and used[line] == 1}


def _values(node) -> dict[str, int]:
    """{key: line on which its value ends} of an assignment to config, a field of a class, or a ConfigDict."""
    if isinstance(node, ast.Call):
        return _entries(node.args[0], "") if ast.unparse(node.func) == "ConfigDict" and node.args else {}
    target = ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
    if isinstance(node, ast.AnnAssign) and node.value:
        return {target: node.value.end_lineno}
    return _entries(node.value, target.removeprefix("config.")) if target.startswith("config.") else {}


def _entries(value, key) -> dict[str, int]:
    if not isinstance(value, ast.Dict):
        return {key: value.end_lineno}
    found = {}
    for name, one in zip(value.keys, value.values, strict=True):
        if isinstance(name, ast.Constant):
            found |= _entries(one, f"{key}.{name.value}".lstrip("."))
    return found
