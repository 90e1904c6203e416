"""The classes of Living17: 17 kinds of living things, four classes of ImageNet each.

They follow from the class hierarchy of BREEDS (Santurkar, Tsipras and Madry, 2021; github.com/MadryLab/BREEDS-Benchmarks)
by its rule: nodes five levels below the root, among living things, with at least four classes below them; of each four
drawn at random (NumPy's legacy generator, seed 2), in the order of WordNet ids. Without subpopulation shift all four
stand in train and test alike: BREEDS splits the same four into two and two.
"""

from __future__ import annotations

# Superclass to its classes: WordNet id to name, in the order of labels.
SUPERCLASSES: dict[str, dict[str, str]] = {
    "salamander": {
        "n01630670": "common newt",
        "n01631663": "eft",
        "n01632458": "spotted salamander",
        "n01632777": "axolotl",
    },
    "turtle": {
        "n01664065": "loggerhead",
        "n01665541": "leatherback turtle",
        "n01667114": "mud turtle",
        "n01669191": "box turtle",
    },
    "lizard": {
        "n01675722": "banded gecko",
        "n01685808": "whiptail",
        "n01689811": "alligator lizard",
        "n01694178": "African chameleon",
    },
    "snake": {
        "n01735189": "garter snake",
        "n01740131": "night snake",
        "n01742172": "boa constrictor",
        "n01751748": "sea snake",
    },
    "spider": {
        "n01773157": "black and gold garden spider",
        "n01773797": "garden spider",
        "n01774750": "tarantula",
        "n01775062": "wolf spider",
    },
    "grouse": {
        "n01795545": "black grouse",
        "n01796340": "ptarmigan",
        "n01797886": "ruffed grouse",
        "n01798484": "prairie chicken",
    },
    "parrot": {
        "n01817953": "African grey",
        "n01818515": "macaw",
        "n01819313": "sulphur-crested cockatoo",
        "n01820546": "lorikeet",
    },
    "crab": {
        "n01978287": "Dungeness crab",
        "n01978455": "rock crab",
        "n01980166": "fiddler crab",
        "n01981276": "king crab",
    },
    "dog": {
        "n02086079": "Pekinese",
        "n02086910": "papillon",
        "n02088466": "bloodhound",
        "n02111500": "Great Pyrenees",
    },
    "wolf": {
        "n02114367": "timber wolf",
        "n02114548": "white wolf",
        "n02114712": "red wolf",
        "n02114855": "coyote",
    },
    "fox": {
        "n02119022": "red fox",
        "n02119789": "kit fox",
        "n02120079": "Arctic fox",
        "n02120505": "grey fox",
    },
    "domestic cat": {
        "n02123159": "tiger cat",
        "n02123394": "Persian cat",
        "n02123597": "Siamese cat",
        "n02124075": "Egyptian cat",
    },
    "bear": {
        "n02132136": "brown bear",
        "n02133161": "American black bear",
        "n02134084": "ice bear",
        "n02134418": "sloth bear",
    },
    "beetle": {
        "n02167151": "ground beetle",
        "n02168699": "long-horned beetle",
        "n02172182": "dung beetle",
        "n02174001": "rhinoceros beetle",
    },
    "butterfly": {
        "n02276258": "admiral",
        "n02277742": "ringlet",
        "n02280649": "cabbage butterfly",
        "n02281406": "sulphur butterfly",
    },
    "ape": {
        "n02480495": "orangutan",
        "n02480855": "gorilla",
        "n02481823": "chimpanzee",
        "n02483362": "gibbon",
    },
    "monkey": {
        "n02490219": "marmoset",
        "n02492660": "howler monkey",
        "n02493509": "titi",
        "n02493793": "spider monkey",
    },
}
