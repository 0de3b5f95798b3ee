"""Common words used in the generated tasks."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words(
    """
    acorn animal apple army arrow aunt baby badge baker balloon banana basket beach bear bell bench berry
    bird blanket boat bottle box boy branch bridge brush bucket building bus bush butterfly button cabin
    cable cake camera canal candle car carpet carrot castle cat chair cherry child church circle city class
    cloud coat coin cookie copy corner country cow crab cradle cup curtain daisy dance desk dish doctor dog
    dollar donkey door dress drum eagle ear egg engine eye face factory family farm farmer feather fence
    field fire flag floor flower fly foot forest fork fox frog game garden gate ghost giant girl glass glove
    goat goose grape guitar half hammer hand hat hero hill holiday horse hospital house idea island jacket
    journey judge key kitchen kitten knife ladder lady lake lamp leaf lemon letter library life lion loaf
    lunch man map market match meadow melon memory mirror monkey month mountain mouse needle nest night
    nurse ocean office onion orange oven owl page palace party path peach pear pencil penny piano picture
    pillow pirate planet plate pocket poem pony potato puppy queen rabbit radio river road robot roof rope
    sandwich school shelf ship shirt shoe shop sister sky snake sofa song spider spoon square stamp star
    story stove street student table tent thief tiger tomato tooth torch towel tower toy train tree turtle
    valley village violin wall watch wave wife window wing witch wolf woman worker yard zebra
    """
)

VERBS = _words(
    """
    accept add agree answer argue arrive ask bake beat become begin bend bite blow boil borrow break bring
    build buy call carry catch change chase choose clap clean climb close come cook copy count cover crawl
    cross cry cut dance decide deny draw drink drive drop dry eat enjoy enter escape explain fall feed feel
    fetch fight fill find fix float fly fold follow forget forgive freeze fry give glow go grab greet grow
    guess hear help hide hit hold hop hope hug hunt hurry hurt invite join judge jump keep kick knock know
    laugh lead leave lend lift like listen live look lose love make march marry measure meet mix move need
    notice obey open order pack paint pass pay phone pick plan plant play point pour pray promise pull push
    put raise reach read receive repair reply rest return ride ring rise roll rub run rush save say scream
    see sell send serve shake share shine shoot shout shut sign sing sink sit sleep slide slip smile
    sneeze speak spend spin stand stare start stay steal step stop study sweep swim switch take talk taste
    teach tear tell thank think throw tie touch trade train trap trust try turn use visit wait walk want
    warn wash watch water wave wear weep win wipe wish wonder work worry wrap write yawn
    """
)

ADJECTIVES = _words(
    """
    angry bald big bitter black blunt bold brave brief bright broad busy calm cheap chilly clean clear close
    cloudy clumsy coarse cold cool cosy crazy crisp curly damp dark deep dense dirty dry dull dusty early
    easy faint fair fancy fast fat fierce fine firm flat fresh friendly full funny gentle grand great greasy
    green happy hard harsh healthy heavy high hot huge hungry icy juicy kind large late lazy light long loose
    loud lovely low lucky mean messy mild muddy narrow near neat new nice noisy odd pale plain polite poor
    pretty proud pure quick rainy rare rich ripe rough round rude sad safe salty sandy sharp shiny short
    silly simple sleepy slim slow small smart smooth soft sour steep stiff strange strict strong sunny sweet
    tall tasty thick thin tight tiny tough ugly warm weak wealthy wet wide wild windy wise young
    """
)

NAMES = _words(
    """
    Ada Alice Amir Ana Ben Carla Chen Clara Dana David Elena Emma Eric Fatima Felix Grace Hana Henry Ines
    Ivan Jack James Jonas Julia Karim Kate Laura Leo Lily Lucas Maria Mark Maya Mia Nadia Nina Noah Nora
    Oliver Omar Oscar Paul Peter Rosa Ruth Sam Sara Simon Sofia Tara Thomas Tom Victor Yuki Zoe
    """
)

TOWNS = _words(
    """
    Athens Berlin Boston Cairo Chicago Dakar Delhi Denver Dublin Geneva Hanoi Havana Lagos Lima Lisbon London
    Lyon Madrid Manila Miami Milan Nairobi Oslo Paris Porto Prague Quito Rome Seattle Seoul Sydney Tokyo
    Toronto Vienna Warsaw Zurich
    """
)

GOODS = _words(
    """
    backpack ball basket bell blanket book bottle bowl box brush bucket camera candle carpet chair clock coat
    cup desk drum fan guitar hammer hat jacket kettle ladder lamp map mirror pan pen piano pillow plate
    radio ring rope shirt shovel sofa spoon table tent towel vase watch
    """
)

COLOURS = (
    "black",
    "blue",
    "brown",
    "gold",
    "green",
    "grey",
    "orange",
    "pink",
    "purple",
    "red",
    "white",
    "yellow",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

UNITS = _words(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
    """
)
TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
