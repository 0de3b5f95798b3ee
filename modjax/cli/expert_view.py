"""The experts of an answer's tokens, as lines for a terminal or a pipe."""

import itertools

import numpy as np

from modjax.cli.terminal import DIM, Terminal, on_one_line

ROWS = 8  # experts in the table
BAR = 20  # characters of a full bar
EIGHTHS = " ▏▎▍▌▋▊▉"
NONE = -1  # instead of a first expert: all weights are equal


def first_experts(weights_LnE: np.ndarray) -> np.ndarray:
    """int[n]: the expert with the largest weight for each token, averaged over layers; -1 if all weights are equal."""
    weights_nE = weights_LnE.mean(axis=0)
    apart_n = np.ptp(weights_nE, axis=1) > 1e-6
    return np.where(apart_n, weights_nE.argmax(axis=1), NONE)


def view(terminal: Terminal, texts: list[str], weights_LnE: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """The lines to show: the answer, marked by each token's first expert, then a table of the experts' use.

    Tokens have the colour of their first expert; without colours, its number in the table follows each run of tokens.

    Args:
      texts: the text of each token.
      weights_LnE: the weights of each token per layer, float[L, n, E].
      names: of the experts.
    """
    first_n = first_experts(weights_LnE)
    share_E = weights_LnE.mean(axis=(0, 1))
    if (first_n == NONE).all():
        return [terminal.painted(f"  every token used all {len(names)} experts alike", DIM)]
    firsts_E = (first_n[:, None] == np.arange(len(names))[None]).mean(axis=0)
    order = [int(one) for one in np.lexsort((-share_E, -firsts_E))]  # experts that the answer shows come first
    place = {expert: number for number, expert in enumerate(order)}
    marked = "".join(
        _marked(terminal, "".join(texts[i] for i in run), place.get(expert))
        for expert, run in itertools.groupby(range(len(texts)), key=lambda i: int(first_n[i]))
    )
    table = _table(terminal, [(on_one_line(names[one]), share_E[one], firsts_E[one]) for one in order])
    return [*(f"  {line}" for line in marked.split("\n")), *table]


def _table(terminal, used):
    """A line for each (name, share of the weight, share of the tokens where it is first); one for all after ROWS."""
    shown, rest = used[:ROWS], used[ROWS:]
    width = max(len(name) for name, _, _ in shown)
    most = max(share for _, share, _ in used)
    yield terminal.painted(f"{'':{width + BAR + 8}} weight  first of", DIM)
    for number, (name, share, first) in enumerate(shown):
        bar = _bar(terminal, number, share / most)
        yield f"{number + 1:4}  {name:{width}}  {bar}  {share:5.0%}   {first:5.0%}"
    if rest:
        yield f"{'and':>4}  {len(rest)} more, {sum(share for _, share, _ in rest):.0%} of the weight"


def _marked(terminal, text, number):
    if number is None:
        return text
    if not terminal.coloured:
        return f"{text}[{number + 1}]"
    # Line by line, because an escape code across lines would also colour the margin.
    return "\n".join(terminal.in_colour(line, number) for line in text.split("\n"))


def _bar(terminal, number, part):
    eighths = round(part * BAR * 8)
    bar = "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
    return terminal.in_colour(f"{bar:{BAR}}", number)
