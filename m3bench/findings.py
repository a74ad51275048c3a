"""What a radiology report says is there, and on which side, by rules: the examiner's reading of reports.

Words of findings are looked up in every clause; a finding is there unless the clause denies it ("no", "without",
"is normal"). "Possible" and "may represent" count as there. In the way of CheXpert's labeller (Irvin et al. 2019,
arXiv:1901.07031) and of NegEx (Chapman et al. 2001, doi:10.1006/jbin.2001.1029), written anew for chest X-rays, chest
CT (the 18 labels of CT-RATE, Hamamci et al. 2024, arXiv:2403.17834) and brain MR. A report that names no finding has
the finding NONE, as CheXpert's "No Finding".
"""

import re
from itertools import pairwise

NONE = "no finding"
BOTH = frozenset(("left", "right"))

_BIG = r"(?:enlarg\w*|dilat\w*|prominent|widen\w*)"
FINDINGS = {
    # the chest
    "cardiomegaly": rf"cardiomegaly|\b(?:heart|cardiac|cardiomediastinal)\b(?: [\w-]+){{0,5}} {_BIG}"
    rf"|{_BIG} (?:heart|cardiac)",
    "pericardial effusion": r"pericardial (?:effusion|fluid)|fluid in the pericardi\w+",
    "pleural effusion": r"(?<!pericardial )(?<!joint )\beffusions?\b|pleural fluid"
    r"|blunt\w+ of the (?:\w+ )?costophrenic",
    "pneumothorax": r"pneumothora(?:x|ces)",
    "nodule": r"(?<!lymph )\b(?:micro)?nodul(?:e|es|ar)\b|\b(?:lung|pulmonary|hilar|suprahilar) mass(?:es)?\b"
    r"|\bmass(?:es)? in the (?:[\w-]+ ){0,2}(?:lung|(?:upper|middle|lower) lobe|hemithorax)",
    "opacity": r"\bopaci(?:ty|ties|fication\w*)\b|ground[- ]glass|infiltrat\w+|air ?space disease|airspace process",
    "consolidation": r"\bconsolidat\w+",
    "pneumonia": r"\bpneumonias?\b|bronchopneumonia",
    "atelectasis": r"atelecta\w+",
    "pulmonary oedema": r"(?:pulmonary|interstitial|alveolar) o?edema|(?:pulmonary )?vascular congestion|heart failure",
    "septal thickening": r"septal thickening|septal lines",
    "emphysema": r"emphysem\w+|hyper-?(?:inflat|expan)\w+|\bcopd\b",
    "mosaic attenuation": r"mosaic (?:attenuation|perfusion|pattern)",
    "bronchiectasis": r"bronchiecta\w+",
    "peribronchial thickening": r"peribronchial (?:wall )?(?:thickening|cuffing)|bronchial wall thickening",
    "fibrosis": r"fibro(?:sis|tic)\b|\bscar(?:s|ring)?\b|sequela\w*",
    "granuloma": r"granuloma\w*",
    "lymphadenopathy": r"lymphadenopath\w+|adenopathy|(?:enlarged|pathologic\w*) (?:\w+ ){0,2}lymph nodes?",
    "hiatal hernia": r"hiat(?:al|us) hernia",
    "arterial calcification": r"(?<!coronary )\b(?:aort\w+|arter\w+|vascular|atheroscler\w+) (?:\w+ ){0,2}calcif\w+"
    r"|atheroscler\w+|calcif\w+ (?:\w+ ){0,3}aort\w+",
    "coronary calcification": r"coronary (?:artery |arteries )?(?:wall )?(?:calcif\w+|atheroma\w*)"
    r"|calcif\w+ (?:[\w-]+ ){0,4}coronary",
    "fracture": r"fractur\w+",
    "device": r"pacemaker|\bpacer\b|catheter|\b(?:picc|port-a-cath)\b|central (?:venous )?line|sternotomy"
    r"|(?:endotracheal|tracheostomy|nasogastric|chest|enteric|feeding) tube|\bstents?\b|prosthe\w+|\bhardware\b"
    r"|electrodes?\b|defibrillator|surgical clips?|medical (?:device|material)",
    # the brain
    "meningioma": r"meningioma\w*",
    "metastasis": r"metasta\w+",
    "glioma": r"\bglio\w+|astrocytoma|oligodendroglioma|intra-?axial (?:[\w-]+ ){0,2}(?:tumou?r|mass|lesion)",
    "tumour": r"\btumou?rs?\b|neoplas\w+|\b(?:brain|cerebr\w+|intracranial|extra-?axial|dural) (?:mass|lesion)"
    r"|\bmass in the (?:[\w-]+ ){0,2}(?:(?:frontal|parietal|temporal|occipital) lobe|cerebell\w+|brain)",
    "infarct": r"\binfarct\w*|isch(?:a?emic) (?:stroke|lesion)\w*|restricted diffusion|diffusion restriction",
    "white matter hyperintensity": r"white[- ]matter (?:[\w-]+ ){0,2}(?:hyperintens\w+|lesions?|changes|disease)"
    r"|leuk[eo]\w*araiosis|microangiopath\w+|hyperintens\w+ (?:[\w-]+ ){0,6}white[- ]matter",
    "brain oedema": r"(?<!pulmonary )(?<!interstitial )(?<!alveolar )\bo?edema",
    "midline shift": r"midline shift|shift of the midline|mass effect",
    "haemorrhage": r"ha?emorrhag\w+|ha?ematoma\w*|microbleeds?",
    "enlarged ventricles": rf"ventric\w+(?: [\w-]+){{0,3}} {_BIG}|{_BIG} (?:\w+ )?ventric\w+|ventriculomegaly"
    r"|hydrocephalus",
    "enhancement": r"\benhanc\w+",
    "necrosis": r"necro(?:sis|tic)",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in FINDINGS.items()}

_SENTENCE = re.compile(r"(?<!\d)\.|\.(?!\d)|[;:\n!?]")
_TURN = re.compile(r"\b(?:but|however|although|though|except|apart from|aside from|yet|(?:and )?there (?:is|are))\b")
_UNSAID = re.compile(  # a "no" that denies something else
    r"\b(?:no|not|without) (?:\w+ ){0,2}?(?:change\w*|increase\w*|decrease\w*|only|progress\w+)\b|can ?not be excluded"
)
_DENIAL = re.compile(
    r"\b(?:no|not|without|free of|clear of|negative for|absence of|absent|rather than|neither|nor|never|resolved"
    r"|resolution of|ruled out)\b"
)
_DENIED_AFTER = re.compile(
    r"^(?: [\w/-]+){0,3}? (?:(?:is|are|was|were|has|have)(?: been)? (?:not|absent|resolved|cleared|ruled out|excluded)"
    r"|not (?:seen|identified|present|observed|detected)|within normal limits"
    r"|(?:is|are|appears?) (?:normal|unremarkable))\b"
)
_SIDE = re.compile(r"\b(left|right|bilateral(?:ly)?|both)\b(?! (?:ventric|atri|heart|cardiac))")


def findings_of(report: str) -> dict[str, frozenset[str]]:
    """What a report says is there: finding -> the sides it names, empty where none is.

    >>> findings_of("No pleural effusion. There is a nodule in the right upper lobe.")
    {'nodule': frozenset({'right'})}
    >>> findings_of("The lungs are clear.")
    {'no finding': frozenset()}
    """
    found: dict[str, frozenset[str]] = {}
    for sentence in _SENTENCE.split(report.lower()):
        for clause in _clauses(_UNSAID.sub(" ", " ".join(sentence.split()))):
            for name, pattern in _PATTERNS.items():
                for place in pattern.finditer(clause):
                    if not _denied(clause, place):
                        found[name] = found.get(name, frozenset()) | _side(clause, place)
    return found or {NONE: frozenset()}


def _clauses(sentence: str) -> list[str]:
    """The sentence cut where a denial ends: at "but", "however", "there is"."""
    starts = [0, *(turn.start() for turn in _TURN.finditer(sentence)), len(sentence)]
    return [sentence[start:end] for start, end in pairwise(starts)]


def _denied(clause: str, place: re.Match[str]) -> bool:
    """Whether a denial stands before the finding, inside it ("heart is not enlarged"), or is said of it afterwards."""
    return bool(_DENIAL.search(clause[: place.end()]) or _DENIED_AFTER.match(clause[place.end() :]))


def _side(clause: str, place: re.Match[str]) -> frozenset[str]:
    """The side that is named nearest to the finding."""
    sides = list(_SIDE.finditer(clause))
    if not sides:
        return frozenset()
    nearest = min(sides, key=lambda side: max(place.start() - side.end(), side.start() - place.end(), 0))
    return frozenset((nearest[1],)) if nearest[1] in BOTH else BOTH
