"""Clinical words: what a request is about, in the spellings that people use."""

import re

_TASKS = {
    "segmentation": "segment|delineat|outlin|contour|mask|mark|pixel-wise|voxel-wise",
    "classification": "tell|classif|diagnos|distinguish|differentiat|discriminat|predict|grad(?:e|ing)|recogni|identif|"
    "sort|screen|categori|separate|which of|is (?:it|this|the|there)\\b[^.;]{0,60}\\?",
    "report_generation": "report|impression|caption|describ|findings|dictat|narrat|transcri|free[- ]text|in words",
    "anomaly_detection": r"anomal|outlier|novelty|few[- ]shot|zero[- ]shot|\w+[- ]shots?\b|out-of-distribution|"
    "abnormality detection|detect(?:ion of)? abnormal|examples? of (?:each|both)",
    "object detection": "bounding box|boxes|count the",
    "registration": "regist|align the",
    "image enhancement": "denois|super-resolution|reconstruct(?!ions)|synthes|generate images",
    "regression": "regress|how many years|age estimation|survival",
}
_REGIONS = {
    "brain": r"brain|head\b|cereb|crani|hippocamp|ventricle|alzheimer|dementia|cognitive|stroke|glioma|ha?emorrhage",
    "chest": "chest|thora|lung|pulmon|pneumon|covid|rib|cardiomegaly|effusion",
    "abdomen": "abdom|liver|hepat|kidney|renal|spleen|splenic|pancrea|gallbladder|stomach|adrenal|bowel|colon",
    "heart": "cardiac|heart|myocard|atrium|coronary",
    "knee": "knee|cruciate|acl|menisc",
    "spine": "spine|vertebra|spinal|lumbar|backbone",
    "eye": "retin|fundus|macula|ocular|glaucoma",
    "breast": "breast|mammo",
    "pelvis": "prostat|pelvi|uter|bladder",
    "skin": "skin|dermat|melanoma",
    "lymph node": "lymph",
    "shoulder": "shoulder|rotator cuff",
    "hip": r"hips?\b",
    "hand or foot": "wrist|ankle|elbow",
}
_MODALITIES = {
    "CT": r"\bct\b|\bcat scan|computed tomography|hounsfield",
    "MR": r"\bmri?\b|magnetic resonance|t1w?\b|t2w?\b|flair",
    "X-ray": r"x-?ray|radiograph|\bcxr\b",
    "ultrasound": r"ultraso|echocardio|sonogra",
    "OCT": r"\boct\b|optical coherence",
    "microscopy": r"histolog|histopath|microscop|h&e|\bwsi\b",
    "photograph": r"photograph|dermoscop|fundus|endoscop",
    "PET": r"\bpet\b|positron",
}
_ORGANS = {
    "brain": "brain|cereb",
    "chest": "chest|thora|lung|pulmon",
    "liver": "liver|hepat",
    "kidney": "kidney|renal",
    "retinal": "retin|macula|fundus",
    "breast": "breast|mammo",
    "knee": "knee",
    "spine": "spine|vertebra",
    "skin": "skin|dermat",
    "cardiac": "cardiac|heart",
    "prostate": "prostat",
    "lymph node": "lymph",
}
_SHAPE = re.compile(
    r"\b(?:outlin|contour|delineat|boundar|border|margin|shape|volume|area|surface|exact|precise|pixel-|voxel-|measur)"
    r"[\w-]*"
)
_PICTURES = {"microscopy": "histopathological image"}  # a kind of image, where its name is not what a caption says
_WRITING = re.compile(
    r"\b(?:writ\w+|draft\w*|dictat\w+|describ\w+|formulat\w+)\b[^.;]{0,60}\b(?:reports?|findings|impressions?|text)\b|"
    r"\b(?:generat\w+|creat\w+|compos\w+|produc\w+)\b[^.;]{0,60}\b(?:reports?|impressions?|captions?)\b|"
    r"\b(?:report|caption)[- ](?:generat|writ)\w+|\bfindings and (?:an? |the )?impressions?\b"
)
_VERTEBRAE = {"c": "cervical", "t": "thoracic|thoracol", "l": "lumbar"}  # what the letter of L3 stands for
_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COUNT = rf"(\d+|{'|'.join(_COUNTS)})"
_SHOTS = (
    rf"\b{_COUNT}[\s-]+shots?\b",
    rf"\b{_COUNT}\s+(?:normal|healthy|good|abnormal|diseased)\b",
    rf"\b{_COUNT}\s+(?:examples?|images?|cases?|samples?)?\s*(?:of\s+)?(?:each|both)\b",
)
_SAME = (
    "ad|alzheimer",
    "mci|mild cognitive impairment",
    "cn|nc|hc|nl|normal|healthy|control|cognitively normal|no pneumonia|no disease|unaffected|unremarkable",
    "ncp|covid|novel coronavirus|coronavirus",
    "cp|common pneumonia|bacterial pneumonia|ordinary pneumonia|usual pneumonia|other pneumonia|other lung infection|"
    "community acquired pneumonia",
    "tumor|tumour|mass|neoplasm|cancer|carcinoma",
    "stone|calcul|nephrolith",
    "hemorrhage|haemorrhage|bleed|bleeding|hematoma|haematoma",
    "infection|infiltrat|opacit|lesion",
    "esophagus|oesophagus",
    "inferior vena cava|vena cava|ivc|postcava",
    "benign|harmless",
    "malignant|cancer",
)
_ALL = re.compile(r"\ball\b|\bevery\b|\beach\b")
_CONTRAST = re.compile(
    r"\b(?:tell|distinguish|separat|differentiat|discriminat)\w*\b[^.;]*\bfrom\b|\b(?:versus|vs)\b|"
    r"\bbetween\b[^.;]* and |\btell\b[^.;]* and [^.;]*\bapart\b"
)
_PIXELS = re.compile(r"\b(?:every|each) (?:pixel|voxel)|\b(?:pixel|voxel)-wise")
_ANY = re.compile(r"organs|structures|anatom|everything")


_MEANT = (  # what is said -> what a colleague hears
    (r"\bcat[- ]scan", "CT scan"),
    (r"\bmagnet(?:ic)? (?=scan|picture|image)|\bmrt\b|\bnmr\b", "MRI "),
    (r"\br(?:oe|ö|o)ntgen\w*", "X-ray"),
    (r"\bcorona\b", "coronavirus"),
    (r"\bcross(?:ed)? ligament", "cruciate ligament"),
    (r"\b(?:belly|tummy)\b", "abdomen"),
    (r"\b(?:innards|viscera)\b", "organs"),
    (r"\bcolou?r(?:ing)? (?:in|all|each|the)\b|\bpaint\b|\btrace\b", "segment"),
    (r"\b(?:classif|label|assign)\w*\s+(?:(?:every|each|all|single|the)\s+)*(?:voxel|pixel)s?\b", "segment"),
    (
        r"\b(?:segment\w*|partition\w*|divid\w*)\b(?=[^.;]{0,40}\binto\b[^.;]{0,30}\b(?:group|class|categor|"
        r"kind|type))",
        "classify",
    ),
)
_ELSEWHERE = re.compile(
    r"\balso have\b|\bother (?:disk|drive|folder|directory|server|computer|dataset|project|study|machine)\b|"
    r"\banother (?:disk|drive|folder|directory|server|dataset|project|study|team|colleague)\b|\belsewhere\b|"
    r"\b(?:parent|sister|sibling|neighbou?ring|adjacent) (?:folder|directory|dataset|project|study)\b|"
    r"\bsame (?:disk|drive|server|computer)\b|\bnext (?:door|to (?:it|this|them))\b|\bbeside (?:it|this|them)\b|"
    r"\b(?:folder above|one level up|stored separately|kept separately|for later)\b|"
    r"\bunlike\b|\bconfus|\bmix (?:it|this) up\b|"
    r"\bignor|\bdisregard|\bshould skip\b|\birrelevant\b|\bnothing to do with\b|"
    r"\bnot (?:part of this|meant|relevant|of interest|matter)\b|"
    r"\b(?:earlier|previous|last \w+'s) (?:project|study|work)\b|\bfor a colleague\b"
)
_LEFT = re.compile(
    r"\bignor\w* (?:it|them|that|those|these|both|all)\b|\bplease ignore\b|"
    r"\bleave (?:it|them|that|those|these|both) (?:alone|out|aside)\b|"
    r"\b(?:do not|don't|never) (?:touch|use|open|read) (?:it|them|that|those|these|both)\b"
)
_BEYOND = {
    "object detection": r"bounding[- ]?box|(?<!bounding )\bboxes\b|\bcount (?:the|all|every)",
    "registration": r"\bregister (?:the|all|each|both|every)|\bregistration\b|\balign the",
    "image enhancement": r"\bdenois|\bsuper-?resolution|\bsynthesi[sz]|\breconstruct(?!ions)|\bdeblur|"
    r"\bgenerate images",
    "regression, such as of survival or age": r"\bsurviv|\bprognos|\blife expectancy|"
    r"\btime to (?:death|event|progression|relapse)|"
    r"\b(?:predict|estimat|determin|guess|regress)\w*\s+(?:the\s+)?(?:\w+\s+)?"
    r"(?:age|weight|volume|ejection fraction)\b",
}
_NNUNET = re.compile(
    r"\bnn-?\s?u-?net(?:[\s-]?v?2)?+(?!\w|'s\b|[\s-]+(?:raw|format|dataset|data|layout|style|folder|structure|convention|"
    r"file|like|task)s?\b)"
)
_NOT_NNUNET = (
    r"\b(?:without|instead of|rather than|than|unlike|like|as|no|not|don't|never|beats?|outperforms?|"
    r"(?:prepared|converted|exported|written|made|laid out|named) (?:for|by|from|as in))\s+"
    r"(?:(?:use|using|with|the|plain)\s+)*nn-?\s?u-?net\w*"
)
_DISEASES = re.compile(
    r"\b(?:parkinson|lewy|frontotemporal|schizophreni|bipolar|autis|epilep|multiple sclerosis|glio(?:ma|blastoma)|"
    r"meningioma|pituitary|adenoma|stroke|isch[ae]+mi|aneurysm|ha?emorrhag|embol|pneumothora|nodule|tubercul|fibros|"
    r"emphysema|effusion|cardiomegal|asthma|bronchi|fractur|cirrho|steato|hepatitis|hydronephro|glaucoma|retinopath|"
    r"cataract|macular degeneration|osteoarthrit|arthrosis|osteoporo|scolio|appendicit|diverticul|melanoma|lymphoma|"
    r"leuk[ae]+mi|pancreatit|thrombo|chronic kidney disease)\w*"
)


def meant(request: str) -> str:
    """The request in a colleague's words, without what it says of other data that happens to be near.

    >>> meant("Sort the CAT scans by disease. There is knee MRI on the other disk, ignore it.")
    'Sort the CT scans by disease.'
    """
    text = request
    for said, heard in _MEANT:
        text = re.sub(said, heard, text, flags=re.I)
    here = _about_this(text)
    return here if task_of(here) is not None or task_of(text) is None else text


def wants_nnunet(request: str) -> bool:
    """Whether the request asks for nnU-Net by name; not as the form of a dataset, and not as what is to be outdone.

    >>> wants_nnunet("Segment the liver with nnU-Net v2."), wants_nnunet("mark the spleen, nnunet please")
    (True, True)
    >>> wants_nnunet("The scans lie in nnU-Net raw format. Segment the liver."), wants_nnunet("Do better than nnU-Net.")
    (False, False)
    """
    return _NNUNET.search(re.sub(_NOT_NNUNET, "", meant(request).lower())) is not None


def _about_this(text: str) -> str:
    """The text without the clauses about other data, and without what a later "ignore it" refers to."""
    text = re.sub(r"\(([^()]*)\)", lambda inner: "" if _is_elsewhere(inner[1]) else inner[0], text)
    kept: list[str] = []
    for sentence in re.split(r"(?<=[.;:!?])\s+", text):
        clauses: list[str] = []
        for clause in re.split(r"(?<=,)\s+", sentence):
            if _LEFT.search(clause.lower()):
                before = clauses or kept
                if before and task_of(before[-1]) is None:
                    before.pop()
            elif not _is_elsewhere(clause):
                clauses.append(clause)
        kept += [" ".join(clauses)] if clauses else []
    return " ".join(kept)


def _is_elsewhere(clause: str) -> bool:
    said = clause.lower()
    return bool(_ELSEWHERE.search(said) or (re.match(r"\s*(?:no|not)\b", said) and modalities(said)))


def beyond(request: str) -> str | None:
    """What a request asks for that no model here does, however else it is worded; None if it asks for nothing such.

    >>> beyond("predict the survival in months"), beyond("classify, no bounding boxes please")
    ('regression, such as of survival or age', None)
    """
    refused = r"(?<!\bno )(?<!\bnot )(?<!\bwithout )"
    return next((name for name, said in _BEYOND.items() if re.search(f"{refused}(?:{said})", request.lower())), None)


def diseases(text: str) -> dict[str, str]:
    """The diseases a text names, of those that are not always in its images: how a word begins -> the word.

    >>> diseases("tell Parkinson's disease from stroke")
    {'parki': 'parkinson', 'strok': 'stroke'}
    """
    return {found[0][:5]: found[0] for found in _DISEASES.finditer(text.lower())}


def task_of(request: str) -> str | None:
    """The task that the first telling word asks for; None if no word tells.

    >>> task_of("write a report of each film that tells left from right"), task_of("classify, and report the accuracy")
    ('report_generation', 'classification')
    """
    found = {name: _first(words, request) for name, words in _TASKS.items()}
    if found["anomaly_detection"] is not None:  # "mark anomalies" is about them
        return "anomaly_detection"
    if _PIXELS.search(request.lower()):  # whoever says it with "classify" or "recognise"
        return "segmentation"
    named = {name: place for name, place in found.items() if place is not None and name != "report_generation"}
    first = min(named, key=lambda name: named[name]) if named else None
    written = _WRITING.search(request.lower())
    if written and (first is None or written.end() <= named[first]):
        return "report_generation"
    if found["report_generation"] is not None and first not in ("classification", "segmentation"):
        return "report_generation"  # "classify reports" and "report the Dice of the masks" are about the former
    return first


def regions(text: str) -> set[str]:
    """The parts of the body that a text speaks of."""
    return {name for name, words in _REGIONS.items() if _first(words, text) is not None}


def modalities(text: str) -> set[str]:
    """The kinds of image that a text speaks of; T1 and T2 are vertebrae where it speaks of such.

    >>> modalities("the vertebrae T1 to T12 on CT"), modalities("T1 volumes")
    ({'CT'}, {'MR'})
    """
    said = text.lower()
    if "vertebra" in said:
        said = re.sub(r"\bt[12]\b(?!\W?weight)", "", said)
    return {name for name, words in _MODALITIES.items() if re.search(words, said)}


def shots(request: str) -> int | None:
    """How many normal, and as many abnormal, images a request gives to learn from: the least number it names.

    >>> shots("4 normal and 4 abnormal"), shots("eight-shot"), shots("from two of each"), shots("few-shot")
    (4, 8, 2, None)
    """
    found = [count.lower() for pattern in _SHOTS for count in re.findall(pattern, request, re.I)]
    return min((_COUNTS.index(count) if count in _COUNTS else int(count) for count in found), default=None)


def shown(text: str) -> str:
    """What the images of a text show, as a caption would say it: "liver CT"; "" if it speaks of none.

    >>> shown("tumours in CT slices of the liver"), shown("anomalies in histopathology")
    ('liver CT', 'histopathological image')
    """
    places = {name: place for name, words in _ORGANS.items() if (place := _first(words, text)) is not None}
    organ = min(places, key=lambda name: places[name], default="")
    kind = min(modalities(text), default="")
    return f"{organ} {_PICTURES.get(kind, kind) or 'image'}".strip() if organ or kind else ""


def contrasts(request: str) -> bool:
    """Whether a request names classes, as "tell A from B" does.

    >>> contrasts("Tell cysts from stones"), contrasts("Predict the grade from the CT"), contrasts("A versus B")
    (True, False, True)
    """
    return _CONTRAST.search(request.lower()) is not None


def everything(request: str) -> bool:
    """Whether the request asks for all labels outright: "all organs, including ..."."""
    return bool(_ALL.search(request.lower()))


def shape(request: str) -> str:
    """What a request asks for that only an outline can teach; "" if nothing.

    >>> shape("Outline the nodules and measure their volume"), shape("Mark the nodules")
    ('outline', '')
    """
    found = _SHAPE.search(request.lower())
    return found[0] if found else ""


def unspecific(request: str) -> bool:
    """Whether the request leaves open which structures it means: "the organs"."""
    return bool(_ANY.search(request.lower()))


def named(label: str, request: str) -> bool:
    """Whether a request speaks of a label: by its words, a synonym, or (for left and right) the organ alone.

    >>> named("right kidney", "segment both kidneys"), named("right kidney", "only the left kidney, please")
    (True, False)
    """
    said, spelled = request.lower(), label.lower().replace("_", " ").replace("-", " ")
    if re.fullmatch(r"[ctl]\d{1,2}", spelled):
        return _is_meant(spelled, said)
    sides = [side for side in ("left", "right") if side in spelled.split()]
    core = " ".join(word for word in spelled.split() if word not in ("left", "right", "gland"))
    parts = core.split(" and ")
    heads = [part.split()[-1] for part in parts if len(part.split()) > 1]  # the infection of "COVID-19 infection"
    if not any(_mentions(phrase, said) for part in parts + heads for phrase in [part, *_synonyms(part)]):
        return False
    asked = [side for side in ("left", "right") if side in said]
    return not sides or not asked or sides[0] in asked


def _is_meant(vertebra: str, said: str) -> bool:
    """Whether a request speaks of a vertebra: by its own name, by its part of the spine, or by the spine as a whole.

    >>> [_is_meant(name, "lumbar vertebrae") for name in ("l3", "c3")], _is_meant("c3", "the spine")
    ([True, False], True)
    """
    parts = [letter for letter, words in _VERTEBRAE.items() if re.search(words, said)]
    return (
        re.search(rf"\b{vertebra}\b", said) is not None
        or vertebra[0] in parts
        or (not parts and _first("vertebra|spine|spinal|backbone", said) is not None)
    )


def _synonyms(phrase: str) -> list[str]:
    groups = [group.split("|") for group in _SAME]
    return [word for group in groups if {phrase, phrase.removesuffix("s")} & set(group) for word in group]


def _mentions(phrase: str, text: str) -> bool:
    if len(phrase) <= 3:
        return re.search(rf"\b{re.escape(phrase)}\b", text) is not None
    phrase = re.escape(phrase.removesuffix("s")).replace("\\ ", " ")
    last = len(phrase.rpartition(" ")[2])  # "brain s" is not all of "brain stem"
    kept = max(6, len(phrase) - min(3, max(0, last - 4)))
    stem = phrase[:kept].strip().replace(" ", r"[\s-]+")  # infection, infected, infections
    return re.search(rf"\b{stem}", text) is not None


def _first(words: str, text: str) -> int | None:
    match = re.search(rf"\b(?:{words})", text.lower())
    return match.start() if match else None
