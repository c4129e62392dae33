"""What is said in other words by rule: phrases and words that mean the same in word problems, verbs, first names.

Only pairs that hold whatever stands around them are here, or with what must stand around them in the pattern. No
entry changes a number or what is asked for.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PERIOD = r"day|week|month|year|hour|minute|second|morning|night|evening|weekend|season|trip|time"
_BEHIND_EACH = (
    r"(?:of|other|one|and|for|in|on|to|at|from|with|plus|but|or|while|per|so|if|because|when|as|is|has|had|have|get|gets"
    r"|got|will|was|were|are|bought|sold|made|paid|spent|cost)\b"
)

# Pattern -> what may stand for it. Tried in this order, and what one of them wrote is not read again.
PHRASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"how many (?=(?!times)[a-z]+(?:s|people|children|feet)\b)", ("what number of ",)),
    (r"how much money", ("what sum of money", "what amount of money")),
    (
        r"how much (?=(?:time|water|food|milk|flour|sugar|gas|weight|profit|change|paint|fabric)\b)",
        ("what amount of ",),
    ),
    (r"how long (?=(?:will|did|does|would) it take)", ("how much time ",)),
    # Someone who has a number of things.
    (
        r"(?<!to )(?<!will )(?<!would )(?<!can )(?<!could )(?<!should )(?<!does )(?<!did )(?<!do )(?P<has>has|have) "
        r"(?=(?:an?|\d+|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty) )",
        (r"\g<has> got ",),
    ),
    (r"years old(?=[\s.,;?!])", ("years of age",)),
    (r"(?<=\bhe )can |(?<=\bshe )can |(?<=\bit )can ", ("is able to ",)),
    (r"(?<=\bthey )can |(?<=\bwe )can ", ("are able to ",)),
    (r"(?<=\bhe )will |(?<=\bshe )will |(?<=\bit )will ", ("is going to ",)),
    (r"(?<=\bthey )will |(?<=\bwe )will ", ("are going to ",)),
    (rf"each (?!{_BEHIND_EACH})(?!\w+ed\b)(?=[a-z]+ )", ("every ",)),
    (r"so far", ("until now",)),
    (r"in order to", ("to",)),
    (r"the same (?=number|amount)", ("an equal ",)),
    (r"the first (?=day|week|month|year)", ("the initial ",)),
    (r"an average of", ("a mean of",)),
    (r"the average", ("the mean",)),
    (r"is selling", ("sells",)),
    (r"went to", ("paid a visit to",)),
    (r"goes to the", ("makes a visit to the",)),
    (r"for every (?=[a-z])", ("for each ",)),
    (r"every (?=[a-z]+ (?:costs|weighs|has|is|takes|contains)\b)", ("each ",)),
    (r"in total", ("altogether", "all in all")),
    (r"altogether", ("in total", "all told")),
    (r"in all(?=[.,;?!])", ("in total", "altogether")),
    (r"the total (?:number|amount) of", ("the overall amount of",)),
    (r"a total of", ("altogether",)),
    (rf"each (?={_PERIOD}\b)", ("every ",)),
    (rf"every (?={_PERIOD}\b)", ("each ",)),
    (rf"per (?={_PERIOD}\b)", ("each ", "every ")),
    (rf"(?<=times )an? (?={_PERIOD}\b)", ("per ", "each ")),
    (r"(?<=\w) each(?=[.,;?!])", (" apiece",)),
    (r"twice as (?=\w)", ("two times as ",)),
    (r"two times as (?=\w)", ("twice as ",)),
    (r"three times as (?=\w)", ("thrice as ",)),
    (r"twice the (?=\w)", ("double the ",)),
    (r"double the (?=\w)", ("twice the ",)),
    (r"half of (?=\w)", ("one half of ",)),
    (r"the rest of", ("the remainder of", "what remains of")),
    (r"the rest(?=[\s.,;?!])", ("the remainder",)),
    (r"the remainder", ("the rest",)),
    (r"as well as", ("and also",)),
    (r"in addition to", ("besides",)),
    (r"because", ("since",)),
    (r"at least", ("no less than",)),
    (r"at most", ("no more than",)),
    (r"exactly", ("precisely",)),
    (r"if (?=(?:each|every|the|a|an|he|she|it|they|there)\b)", ("given that ", "supposing ")),
    (r"a lot of", ("plenty of",)),
    (r"for free", ("at no cost",)),
    (r"an? equal (?:number|amount) of", ("the same number of",)),
    (r"needs to", ("has to",)),
    (r"wants to", ("would like to", "wishes to")),
    (r"want to", ("would like to", "wish to")),
    (r"wanted to", ("wished to",)),
    (r"decides to", ("chooses to",)),
    (r"decided to", ("chose to",)),
    (r"is able to", ("can",)),
    (r"are able to", ("can",)),
    (r"gets? (?=\$|\d)", ("receives ",)),
    (r"costs (?=\$|\d)", ("is priced at ",)),
    (r"weighs (?=\d)", ("has a weight of ",)),
    (r"starts with", ("begins with",)),
    (r"started with", ("began with",)),
    (r"calculate", ("work out", "compute")),
    (r"determine", ("work out", "establish")),
    (r"compute", ("work out", "calculate")),
    (r"find (?=the\b|all\b)", ("determine ", "work out ")),
    (r"evaluate", ("work out the value of",)),
    (r"positive integers?(?= such)", ("whole number above zero",)),
    (r"express your answer", ("write your answer", "give your answer")),
    (r"such that", ("so that",)),
    (r"is equal to", ("equals",)),
)
# Word -> word. The plural or a past tense has an entry of its own.
WORDS: dict[str, str] = {
    "buys": "purchases",
    "bought": "purchased",
    "buying": "purchasing",
    "collects": "gathers",
    "collected": "gathered",
    "eats": "consumes",
    "ate": "consumed",
    "finishes": "completes",
    "finished": "completed",
    "begins": "starts",
    "began": "started",
    "starts": "begins",
    "started": "began",
    "receives": "gets",
    "received": "got",
    "requires": "needs",
    "kids": "children",
    "children": "kids",
    "mother": "mom",
    "mom": "mother",
    "father": "dad",
    "dad": "father",
    "store": "shop",
    "shop": "store",
    "bicycle": "bike",
    "bike": "bicycle",
    "movie": "film",
    "movies": "films",
    "cookie": "biscuit",
    "cookies": "biscuits",
    "vacation": "holiday",
    "garbage": "trash",
    "trash": "garbage",
    "money": "cash",
    "gift": "present",
    "gifts": "presents",
    "remaining": "leftover",
    "leftover": "remaining",
    "also": "additionally",
    "house": "home",
    "town": "city",
    "usually": "normally",
    "normally": "usually",
    "pictures": "photos",
    "photos": "pictures",
    "currently": "now",
    "participants": "people taking part",
    "earns": "makes",
    "earned": "made",
    "discovered": "found",
    "integers": "whole numbers",
    "distinct": "different",
    "simplify": "put into simplest form",
    "contains": "holds",
}
# Verbs that are asked with `does` and `did`: what they are without these.
VERBS: dict[str, tuple[str, str]] = {
    "buy": ("buys", "bought"),
    "collect": ("collects", "collected"),
    "cost": ("costs", "cost"),
    "drink": ("drinks", "drank"),
    "drive": ("drives", "drove"),
    "earn": ("earns", "earned"),
    "eat": ("eats", "ate"),
    "end": ("ends", "ended"),
    "get": ("gets", "got"),
    "give": ("gives", "gave"),
    "go": ("goes", "went"),
    "have": ("has", "had"),
    "lose": ("loses", "lost"),
    "make": ("makes", "made"),
    "need": ("needs", "needed"),
    "owe": ("owes", "owed"),
    "own": ("owns", "owned"),
    "pay": ("pays", "paid"),
    "plant": ("plants", "planted"),
    "read": ("reads", "read"),
    "receive": ("receives", "received"),
    "run": ("runs", "ran"),
    "save": ("saves", "saved"),
    "sell": ("sells", "sold"),
    "solve": ("solves", "solved"),
    "spend": ("spends", "spent"),
    "start": ("starts", "started"),
    "take": ("takes", "took"),
    "use": ("uses", "used"),
    "walk": ("walks", "walked"),
    "weigh": ("weighs", "weighed"),
    "work": ("works", "worked"),
    "write": ("writes", "wrote"),
}
# No names that are also other words (Grace, Mark, Rose, Will).
FEMALE = _words("""
Abigail Alice Amanda Amy Andrea Angela Anna Annie Barbara Betty Brenda Carla Carol Caroline Catherine Christina Cindy
Claire Cynthia Daisy Debra Diana Donna Ella Emily Emma Erica Erin Eva Fiona Gina Gloria Hannah Heather Heidi Helen
Irene Isabel Isabella Jane Janet Jasmine Jenna Jennifer Jenny Jessica Jill Joan Joanna Julia Julie Karen Kate Katherine
Kathy Katie Kelly Kim Kimberly Laura Lauren Leah Linda Lisa Lucy Madison Mandy Maria Marie Martha Mary Megan Melissa
Mia Michelle Molly Monica Nancy Natalie Nicole Nina Olivia Pamela Patricia Paula Rachel Rebecca Rita Sally Samantha
Sandra Sara Sarah Sharon Sheila Sophia Stella Stephanie Susan Tina Tracy Vanessa Veronica Wendy
""")
MALE = _words("""
Aaron Adam Alan Albert Alex Alfred Andrew Anthony Arthur Ben Benjamin Bernie Bobby Brad Brandon Brian Bruce Bryan Carl
Charles Charlie Chris Christopher Colin Craig Dan Daniel Danny Dave David Dennis Derek Donald Doug Dylan Edward Eric
Ethan Francis Fred Gary George Gerald Greg Harold Harry Henry Ian Isaac Jacob Jake James Jason Jeff Jeffrey Jeremy
Jerry Jim Jimmy Joe Joel John Johnny Jonathan Jordan Joseph Joshua Josh Justin Keith Ken Kenny Kevin Kyle Larry Leo
Liam Louis Luke Marcus Martin Matt Matthew Michael Mike Nathan Nicholas Noah Oliver Oscar Patrick Paul Peter Philip
Ralph Raymond Richard Robert Roger Ronald Ryan Sam Samuel Scott Sean Simon Stephen Steve Steven Terry Thomas Tim
Timothy Toby Tom Tommy Tyler Victor Vincent Walter Wayne William Zack
""")
