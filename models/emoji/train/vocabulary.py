"""What the model learns: vocabulary.txt joined with Unicode's names and keywords."""
import dataclasses
import xml.etree.ElementTree

import places

# Ten colours that any emoji may take, and ten backgrounds that it may stand on.
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
BACKGROUNDS = {
    "white": (255, 255, 255), "red": (229, 57, 53), "orange": (251, 140, 0), "yellow": (253, 216, 53),
    "green": (67, 160, 71), "blue": (30, 136, 229), "purple": (142, 36, 170), "pink": (244, 143, 177),
    "black": (20, 20, 20), "gray": (158, 158, 158),
}
COLOUR_WORDS = frozenset(COLOURS) | frozenset(BACKGROUNDS)


@dataclasses.dataclass
class Emoji:
    """One picture: `characters` as the font takes them, `names` the CLDR name and then the everyday words."""
    characters: str
    names: list
    keywords: list

    def bare_names(self):
        """The names without words of colour, which a colour is put before."""
        bare = (" ".join(w for w in name.split() if w not in COLOUR_WORDS) for name in self.names)
        return [b for b in dict.fromkeys(bare) if b]


def all_names(emoji):
    """The names and words of all of them, a set."""
    return {name for one in emoji for name in one.names}


def _annotations():
    """Of each CLDR name, in lower case: the characters and their keywords."""
    found = {}
    for folder in ("annotations", "annotationsDerived"):
        path = places.needs(places.ANNOTATIONS.format(folder), "apt-get install unicode-cldr-core")
        names, keywords = {}, {}
        for entry in xml.etree.ElementTree.parse(path).getroot().iter("annotation"):
            if entry.get("type") == "tts":
                names[entry.get("cp")] = entry.text.strip()
            else:
                keywords[entry.get("cp")] = [k.strip().lower() for k in entry.text.split("|")]
        found.update({name.lower(): (cp, keywords.get(cp, [])) for cp, name in names.items()})
    return found


def read(path=places.VOCABULARY):
    """The list of Emoji; Refused for a name that Unicode lacks or a word that stands twice."""
    known = _annotations()
    emoji, taken = [], set()
    with open(places.needs(path, "give a vocabulary's file"), encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            name, _, words = text.partition(":")
            names = [n.strip().lower() for n in [name, *words.split(",")] if n.strip()]
            if not names or names[0] not in known:
                raise places.Refused(f"{path}, line {number}: Unicode's CLDR has no emoji named \"{name}\"")
            twice = [n for i, n in enumerate(names) if n in taken or n in names[:i]]
            if twice:
                raise places.Refused(f"{path}, line {number}: \"{twice[0]}\" stands there twice")
            taken.update(names)
            emoji.append(Emoji(known[names[0]][0], names, known[names[0]][1]))
    if not emoji:
        raise places.Refused(f"{path}: no emoji is named")
    return emoji
