"""200 prompts that a CLIP tokenizer gets wrong if any rule of it is missing.

The random ones draw only from characters of Unicode 3.2, whose case, class and composition are
settled, so that the list does not depend on the Unicode version of a library.
"""

import random
from unicodedata import ucd_3_2_0

COUNT = 200

PLAIN = [
    "", " ", "red apple", "Red Apple", "  red   apple  ", "red,apple", "a photo of a cat",
    "masterpiece, best quality, 1girl, (solo:1.2), [blurry]",
    "((best quality)), <lora:detail:0.8>, BREAK, a AND b", "supercalifragilisticexpialidocious",
    "pneumonoultramicroscopicsilicovolcanoconiosis", "antidisestablishmentarianism " * 3,
    "qwrtpsdfghjklzxcvbnm",
]

APOSTROPHES = [
    "it's", "don't", "SHE'LL", "y'all'd've", "it\u2019s", "don\u2019t I\u2019LL", "'s", "'tis",
    "''s", "'s's's", "rock 'n' roll", "x's' 't", "'S'T'RE'VE'M'LL'D",
    "'sun 'tree 'read 'vest 'moon 'llama 'dog", "a 's b", "!'s", "''ll", "\u02bcs",
    "O'Reilly's d'Artagnan l'\u00e9t\u00e9", "'\u017f",
]

NUMBERS = [
    "1234567890", "3.14159", "4k 8K 1080p", "2x4=8", "x1y2z3", "1\u20442 \u00bd \u00be",
    "x\u00b2+y\u00b3=z\u2074", "\u2163 \u2167 \u216b \u2173",
    "\u0661\u0662\u0663 \u0967\u0968\u0969 \u0e51\u0e52", "\uff11\uff12\uff13",
    "\u2460\u2461\u2462 \u3220 \u3007", "\u4e00\u4e8c\u4e09 5\u670814\u65e5",
    "\U0001d7d8\U0001d7d9 \U00010107", "1e-5 0x1F 0b101", "n\u00ba5 1\u00aa",
]

SPACES = [
    "a\tb", "a\nb", "a\r\nb", "a\u00a0b", "a\u00a0\u00a0 b", "a\u1680b\u2000c\u2001d\u2007e",
    "a\u2028b\u2029c", "a\u202fb\u205fc", "a\u3000b", "a\u0085b", "a\u000bb\u000cc",
    "a\u001cb\u001dc\u001ed\u001fe", "a\u200bb", "a\u200cb\u200dc", "a\ufeffb", "\ufeffa",
    "a\u2060b", "a\u180eb", "soft\u00adhyphen", "a\u0001b\u0007c\u001b[0m\u007f", "\u200b",
    "\u00a0",
]

CASES = [
    "\u0130stanbul", "I \u0131 i \u0130", "DI\u0307", "Stra\u00dfe STRA\u1e9eE",
    "\u039f\u0394\u039f\u03a3 \u03c3\u03c2", "\u039c\u0391\u03a3 \u039c\u0391\u03a3.",
    "\u01c4 \u01c5 \u01c6 \u01f1", "\u212b \u2126 \u212a", "\u00c5ngstr\u00f6m",
    "\u1f08\u0399 \u1f88 \u1fbc", "\U00010400\U00010428", "\u13a0\u13a1 \uab70",
    "\u1c90\u10a0\u10d0", "\u24b6\u24d0", "\uff21\uff22\uff41", "\u0404\u0416\u0429 \u04c0",
    "\U0001e900\U0001e922", "\u2c2f\u2c5f \ua7ae",
]

COMPOSED = [
    "caf\u00e9", "cafe\u0301", "e\u0301e\u0300e\u0302", "a\u0328\u0301 a\u0301\u0328",
    "q\u0307\u0323 q\u0323\u0307", "\u0041\u030a \u00c5", "n\u0303o",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8", "\ud55c\uae00", "\u0301a", "a \u0301b",
    "\u0915\u093c \u0958", "\u0344 \u0374 \u037e \u0387", "\ufb01 \ufb03 \u2122 \u33a1",
    "\u0f73\u0f75\u0f81", "\U0001d15e \U0001d1bb", "\u304b\u3099 \u304c \uff76\uff9e",
    "\u2adc \ufb1f \uf900 \ufa10", "Z\u0351\u036b\u0343a\u0322\u0328l\u0334\u0321g\u0335o\u0337",
    "s\u0323\u0307 \u1e69 \u1e63\u0307",
]

SCRIPTS = [
    "\u7ea2\u82f9\u679c", "\u8d64\u3044\u308a\u3093\u3054", "\u30ea\u30f3\u30b4\u30fc",
    "\ube68\uac04 \uc0ac\uacfc", "\u062a\u0641\u0627\u062d\u0629 \u062d\u0645\u0631\u0627\u0621",
    "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627\u061f",
    "\u202b\u05ea\u05e4\u05d5\u05d7\u202c", "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",
    "\u0e41\u0e2d\u0e1b\u0e40\u0e1b\u0e34\u0e49\u0e25\u0e2a\u0e35\u0e41\u0e14\u0e07",
    "\u0932\u093e\u0932 \u0938\u0947\u092c", "\u0995\u09cd\u09b7 \u0ba8\u0bbf \u0c15\u0c4d\u0c37",
    "\u043a\u0440\u0430\u0441\u043d\u043e\u0435 \u044f\u0431\u043b\u043e\u043a\u043e",
    "\u03ba\u03cc\u03ba\u03ba\u03b9\u03bd\u03bf \u03bc\u03ae\u03bb\u03bf",
    "t\u00e1o \u0111\u1ecf Vi\u1ec7t Nam",
    "\u1780\u17d2\u1798\u17c2\u179a \u1019\u103c\u1014\u103a\u1019\u102c", "\U00020000\U0002a6d6",
    "\U00010330\U00010331 \U00012000", "\u16a0\u16a2\u16a6 \u1403\u14c4",
    "\u2800\u2801 \u25a0\u25a1\u266b",
]

EMOJI = [
    "\U0001f34e", "\u2764\ufe0f", "\U0001f44d\U0001f3fd",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f1fa\U0001f1f8\U0001f1ec\U0001f1e7",
    "1\ufe0f\u20e3 #\ufe0f\u20e3",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "a\U0001f34eb \U0001f34e c", "\u263a\ufe0e \u231a \U0001fae0",
]

SPECIAL = [
    "<|endoftext|>", "<|startoftext|>", "a<|endoftext|>b", "a <|endoftext|> b", "<|ENDOFTEXT|>",
    "<|StartOfText|> x", "<|endoftext|><|endoftext|>", "e<|endoftext|>\u0301", "< |endoftext|>",
    "<|endoftext|", "cat</w> dog</w>", "!<|startoftext|>'s", " <|endoftext|> ",
]

MARKUP = [
    "&amp; &lt;b&gt; &#39; &eacute;", "https://example.org/a?b=c&d=%20e#f",
    "C:\\path\\file.txt ~/x/../y", "for(int i=0;i<n;++i){a[i]+=b*c;}", "x = {'k': \"v\"}  # 'll",
    "!!!", "?!?!?!?!?!", "\u2014\u2013\u2012 \u2026 \u00ab\u00bb \u201c\u201d",
    "$5 \u20ac6 \u00a37 \u00a58", "\u00bfqu\u00e9? \u00a1s\u00ed!", "a+b-c*d/e^f%g|h~i`j",
    "((((((((((", "@#$%^&*()_+{}|:\"<>?", "\u3001\u3002\u300c\u300d\uff0c\uff01",
]

LONG = [
    "cat " * 74, "cat " * 75, "cat " * 200, "a" * 300, "!" * 500, "1" * 90, "\U0001f34e" * 60,
    "\u7ea2" * 40, "highly detailed, sharp focus, " * 20, "word" * 80,
    ("cat " * 74) + "supercalifragilistic", ("cat " * 74) + "<|endoftext|> dog",
]


def random_prompts(count):
    """Words of 1 to 8 characters from all of Unicode 3.2, joined by one space."""
    chooser = random.Random(32)
    alphabet = [
        chr(code) for code in range(0x21, 0x2FA1E)
        if not 0x3400 <= code <= 0xD7A3  # the large CJK and Hangul blocks would drown the rest
        and not 0x20000 <= code <= 0x2F7FF
        and ucd_3_2_0.category(chr(code)) not in ("Cn", "Co", "Cs")
    ]
    def word():
        return "".join(chooser.choices(alphabet, k=chooser.randint(1, 8)))
    return [" ".join(word() for _ in range(chooser.randint(1, 6))) for _ in range(count)]


def prompts():
    """Exactly COUNT prompts: the written ones, filled up with random ones."""
    written = (PLAIN + APOSTROPHES + NUMBERS + SPACES + CASES + COMPOSED + SCRIPTS + EMOJI
               + SPECIAL + MARKUP + LONG)
    return written + random_prompts(COUNT - len(written))


def tiny_prompts():
    """A few of each kind, and the words that the tiny model's cases use."""
    few = [PLAIN[0], PLAIN[2], PLAIN[7], PLAIN[9], APOSTROPHES[1], APOSTROPHES[3], NUMBERS[0],
           NUMBERS[6], SPACES[4], SPACES[12], CASES[0], CASES[4], COMPOSED[1], COMPOSED[7],
           SCRIPTS[0], EMOJI[3], SPECIAL[2], SPECIAL[4], MARKUP[3], LONG[7]]
    return few + ["blue", "a red apple, 2 leaves"]
