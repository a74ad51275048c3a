"""The values that travel between stages: typed, frozen, JSON in and out, and free of pixels and patient identifiers.

    Request --TaskManager--> Plan --DataEngineer--> Index --ModuleArchitect--> Design --ModelTrainer--> Outcome
              DataCard         Fingerprint

Paths are relative to the dataset folder, with `/`. A *pattern* is a path in which every digit is written as `#` and
every varying word as `*` (`ADNI_PT/I######.pt`, `*/img/*.png`): it is what a language model gets to see.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

Task = Literal["classification", "segmentation", "anomaly_detection", "report_generation"]
Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = ("training", "validation", "test")
ROLES = ("task_manager", "data_engineer", "module_architect", "model_trainer")
AS_WRITTEN = "none: prompts as written"
NORMAL, ABNORMAL = ANOMALY_LABELS = ("normal", "abnormal")  # the labels of every anomaly detection


class Value(BaseModel):
    """A frozen record; an unknown field is an error. Its text is its JSON, so that every prompt shows it alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __repr__(self) -> str:
        return self.model_dump_json()

    __str__ = __repr__


class Request(Value):
    """What the person asked for. Only `text` is ever shown to a language model."""

    text: str = Field(min_length=1)
    data: str = Field(description="the dataset folder, absolute, on this machine")
    program: str | None = Field(default=None, description="the compiled program, as it was named; None: as written")
    lm: str = Field(default="rules", description="of every role that `routing` does not name")
    routing: dict[str, str] = Field(default_factory=dict, description="role -> LM")
    api_base: str | None = Field(default=None, description="server of the LMs that name none")
    trials: int = Field(default=10, ge=0)
    minutes: float | None = Field(default=None, gt=0, description="wall time for tuning; the final training is not cut")
    folds: int = Field(default=1, ge=1, le=20, description="models, each checked on another part of the cases")
    seed: int = 0
    weights: str | None = Field(
        default=None,
        description="pretrained: a CLIP's file or name, NAME or NAME=FILE of timm, MedicalNet, or a language model",
    )
    budget: float | None = Field(default=None, ge=0, description="dollars for language models")
    max_calls: int | None = Field(default=None, ge=0, description="calls to language models")
    unsafe: bool = False
    jobs: int = Field(default=1, ge=1, description="trials at a time")
    storage: str | None = Field(default=None, description="URL of the study's database; None: a file in the run folder")
    cluster: str | None = Field(default=None, description="address of a Dask scheduler; None: this machine")
    track: Literal["tensorboard", "mlflow"] | None = Field(default=None, description="where the run is told of, too")


class DataCard(Value):
    """A known dataset described in free text, as a colleague would who has worked with it."""

    name: str
    text: str


# ------------------------------------------------------------------------------------------------ Fingerprint
class Spread(Value):
    """How a number varies over the sampled files, one entry an axis (one only for scalars)."""

    least: tuple[float, ...]
    tenth: tuple[float, ...] = Field(default=(), description="10th percentile; (): of a run from before it was taken")
    median: tuple[float, ...]
    most: tuple[float, ...]


class Group(Value):
    """Image files of one format and folder pattern."""

    pattern: str = Field(description="e.g. 'Training/img/img####.nii.gz'; '*' where words vary")
    folder: str = Field(description="the fixed folder above them, '' for the dataset folder itself")
    format: str = Field(description="name of the reader: nifti, dicom, raster, npy, torch_tensor, pickled")
    count: int = Field(description="files, or series and slice folders when `slices` is true")
    slices: bool = Field(default=False, description="each folder of files is one volume")
    dims: Literal[2, 3]
    channels: int = 1
    shape: Spread = Field(description="voxels, channel axis left out")
    spacing: Spread | None = Field(default=None, description="mm; None where files do not say")
    orientations: dict[str, int] = Field(default_factory=dict, description="axis codes such as RAS -> sampled files")
    dtypes: dict[str, int] = Field(default_factory=dict)
    intensity: dict[str, float] = Field(
        default_factory=dict, description="over sampled files: min, p0.5, p50, p99.5, max, mean, std"
    )
    units: dict[str, int] = Field(
        default_factory=dict, description="guessed per file: HU, 8-bit, 0..1, mask, arbitrary -> sampled files"
    )
    values: tuple[int, ...] = Field(default=(), description="if it looks like masks: the voxel values seen, sorted")


class Column(Value):
    """One column of a table. Identifiers are shown as a pattern, never as values."""

    name: str
    kind: Literal["category", "number", "text", "identifier", "date", "empty"]
    distinct: int
    missing: int = 0
    values: dict[str, int] = Field(default_factory=dict, description="category: value -> rows, most frequent first")
    pattern: str = Field(default="", description="identifier: its most frequent pattern")
    words: int = Field(default=0, description="text, such as reports: median words a cell; `missing` holds no text")
    commonest: int = Field(default=0, description="text: rows that share the most frequent one")
    names_files: str = Field(default="", description="pattern of the image group whose path, name or stem it holds")
    rows_with_file: int = 0


class Table(Value):
    """A CSV, TSV, XLSX or record-list JSON file."""

    path: str
    rows: int
    duplicates: int = Field(default=0, description="rows that repeat an earlier row word for word")
    columns: tuple[Column, ...]


class Pair(Value):
    """An image group and the mask group that belongs to it, matched case by case."""

    image: str = Field(description="pattern of the image group")
    mask: str = Field(description="pattern of the mask group")
    matched: int
    images_without_mask: int = 0
    masks_without_image: int = 0
    mismatched: int = Field(default=0, description="sampled pairs whose shape or spacing differ")
    values: dict[str, int] = Field(default_factory=dict, description="voxel value -> sampled masks that hold it")


class ClassFolders(Value):
    """Sibling folders that look like class names."""

    parent: str = Field(description="the folder above them, '' for the dataset folder itself")
    classes: dict[str, int] = Field(description="folder name -> images below it")
    levels: int = Field(default=0, description="folders between the class folder and the images (patient, scan)")


class PatientKey(Value):
    """A place where the patient can be read off."""

    where: Literal["column", "folder", "file name", "header"]
    table: str = Field(default="", description="path of the table, where 'column'")
    column: str = ""
    part: str = Field(
        default="",
        description="'folder': pattern of the path part; 'file name': a regular expression; 'header': PatientID",
    )
    patients: int
    images: int


class Document(Value):
    """A small text or JSON file that may describe the data."""

    path: str
    text: str = Field(description="its beginning, cleaned and pseudonymised")


class Unpacked(Value):
    """How a container was made plain files; every path elsewhere is that of the plain files."""

    format: str = Field(description="e.g. medmnist, coco, dicom_objects")
    how: tuple[str, ...] = Field(default=(), description="what was done, a sentence each")
    boxes: bool = Field(
        default=False, description="masks are boxes around what is marked: no outline, area or volume can be learned"
    )


class Fingerprint(Value):
    """What a look at the folder found: enough to plan and to write an index, no pixels, no patient identifiers."""

    files: int
    megabytes: float
    formats: dict[str, int] = Field(description="suffix -> files")
    groups: tuple[Group, ...] = ()
    tables: tuple[Table, ...] = ()
    pairs: tuple[Pair, ...] = ()
    class_folders: tuple[ClassFolders, ...] = ()
    patients: tuple[PatientKey, ...] = Field(default=(), description="best first")
    lookalikes: int = Field(default=0, description="images, of those sampled, that nearly repeat another one")
    documents: tuple[Document, ...] = ()
    unpacked: Unpacked | None = Field(default=None, description="None: the files are as they lie")
    warnings: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------ Plan
class Source(Value):
    """Where something is read from: `from_folder`, `from_table`, `from_masks` or a dataset's own `from_json` list."""

    kind: Literal["folder", "table", "masks", "json"]
    path: str = Field(
        default="",
        description="parent of the class folders, the table, the mask pattern, or the JSON file; of several lists of "
        "reports, one a split, that of training",
    )
    column: str = Field(default="", description="table: the column that holds the label")
    file_column: str = Field(default="", description="table, or JSON records: the column that names the image file")
    files: str = Field(
        default="", description="report_generation: the table that holds file_column, where `path` does not; else ''"
    )
    key: str = Field(default="", description="report_generation: the column that `path` and `files` share; else ''")


class Caps(Value):
    """At most so many images, drawn evenly over the classes when `balanced`."""

    training: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)
    balanced: bool = False


class Plan(Value):
    """One modelling task on this dataset, decided."""

    task: Task
    goal: str = Field(description="one sentence: what the model tells or marks, on which images")
    card: str | None = Field(default=None, description="name of the card that describes this folder, if one does")
    modality: Literal["CT", "MR", "X-ray", "ultrasound", "OCT", "microscopy", "photograph", "other"]
    dims: Literal[2, 3]
    images: str = Field(description="pattern of the image group to learn from")
    labels: tuple[str, ...] = Field(
        description="classes, or structures to mark (background left out), in a fixed order; anomaly_detection: "
        "normal, abnormal; report_generation: none, ()",
    )
    label_values: tuple[str, ...] = Field(
        default=(),
        description="how the data writes each label: folder name, cell or voxel value; () if as in `labels`",
    )
    source: Source
    masks: str | None = Field(
        default=None, description="anomaly_detection: pattern of the masks that mark anomalies, if there are any"
    )
    about: str = Field(
        default="", description="anomaly_detection: what every image shows, in two or three words: 'liver CT'"
    )
    shots: int | None = Field(
        default=None,
        ge=0,
        description="anomaly_detection: so many normal and as many abnormal images to learn from; 0: zero-shot",
    )
    findings: str = Field(
        default="", description="report_generation: the column, or key of the JSON records, that holds the findings"
    )
    impression: str = Field(
        default="", description="report_generation: the same for the impression; '' where there is none"
    )
    patient: PatientKey | None = Field(
        default=None, description="None: nothing says it; group look-alike images instead"
    )
    caps: Caps = Caps()
    sided: bool = Field(default=False, description="labels tell left from right: images must not be mirrored")

    @model_validator(mode="after")
    def _one_value_a_label(self) -> "Plan":
        if self.label_values and len(self.label_values) != len(self.labels):
            raise ValueError(f"label_values has {len(self.label_values)} entries, labels has {len(self.labels)}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels repeats a name: {', '.join(self.labels)}")
        return self

    @model_validator(mode="after")
    def _anomalies(self) -> "Plan":
        if self.task == "anomaly_detection":
            if self.labels != ANOMALY_LABELS:
                raise ValueError(f"the labels of an anomaly_detection are {', '.join(ANOMALY_LABELS)}")
            if not self.about or self.shots is None:
                raise ValueError("an anomaly_detection needs `about` and `shots`")
        elif self.about or self.masks or self.shots is not None:
            raise ValueError(f"about, masks and shots are for anomaly_detection, not for {self.task}")
        return self

    @model_validator(mode="after")
    def _reports(self) -> "Plan":
        if self.task == "report_generation":
            if self.labels or self.source.kind not in ("table", "json") or not self.findings:
                raise ValueError("a report_generation has no labels, a table or JSON as its source, and `findings`")
        elif self.findings or self.impression:
            raise ValueError(f"findings and impression are for report_generation, not for {self.task}")
        elif not self.labels:
            raise ValueError(f"a {self.task} needs labels")
        return self


# ------------------------------------------------------------------------------------------------ Index
_ALWAYS = ("id", "patient", "image", "label")
_ANSWERS = ("label", "mask", "findings", "impression")


class Item(Value):
    """One case. Paths are relative to the dataset folder."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="unique, and usable as a file name")
    patient: str = Field(min_length=1)
    image: str | tuple[str, ...] = Field(description="a file, or the slices of one volume in order")
    label: str | tuple[str, ...] | None = Field(
        default=None,
        description="class name, list of names (multilabel), or path of the mask; None in hidden test lists",
    )
    mask: str | None = Field(
        default=None, description="anomaly_detection: the mask of what is abnormal, if there is one"
    )
    about: str | None = Field(
        default=None, description="anomaly_detection: what the image shows, where it is not what the index says"
    )
    findings: str | None = Field(
        default=None, description="report_generation: what the radiologist saw; None if hidden"
    )
    impression: str | None = Field(default=None, description="report_generation: the conclusion, if there is one")

    @model_serializer(mode="wrap")
    def _without_blanks(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What belongs to one task only is left out elsewhere: nobody has to read past it."""
        return {key: value for key, value in written(self).items() if value is not None or key in _ALWAYS}


class Index(Value):
    """Every case, its label and its split; `monai.data.load_decathlon_datalist` reads the JSON as it stands."""

    task: Task
    labels: tuple[str, ...] = Field(description="of report_generation: ()")
    values: tuple[int, ...] = Field(default=(), description="segmentation: voxel value of each label in the masks")
    multilabel: bool = Field(
        default=False, description="several labels may hold; segmentation: values are bits, voxels hold sums of them"
    )
    about: str = Field(default="", description="anomaly_detection: what the images show: 'liver CT'")
    training: tuple[Item, ...] = ()
    validation: tuple[Item, ...] = ()
    test: tuple[Item, ...] = ()

    @model_validator(mode="after")
    def _has_labels(self) -> "Index":
        if bool(self.labels) == (self.task == "report_generation"):
            raise ValueError("a report_generation has no labels, every other task has at least one")
        return self

    def items(self, split: Split) -> tuple[Item, ...]:
        return getattr(self, split)

    def without_test_labels(self) -> "Index":
        """The form that a training script gets to see."""
        return self.model_copy(
            update={"test": tuple(item.model_copy(update=dict.fromkeys(_ANSWERS)) for item in self.test)}
        )


class IndexSummary(Value):
    """An index in numbers, for a prompt."""

    task: Task
    labels: tuple[str, ...]
    multilabel: bool = False
    cases: dict[Split, int]
    patients: dict[Split, int]
    cases_per_label: dict[str, int] = Field(default_factory=dict, description="training cases a class; {} for masks")
    with_mask: int = Field(default=0, description="anomaly_detection: training cases with a mask")


# ------------------------------------------------------------------------------------------------ Design
class Machine(Value):
    """What trains."""

    gpu: str = Field(default="", description="the smallest GPU there is; '': none, the CPU trains")
    gigabytes: float = Field(default=0.0, ge=0, description="memory of that GPU")


class Knob(Value):
    """One dimension of the search space: a range (`low`, `high`) or a list of choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = Field(default=False, description="whole numbers only")
    choices: tuple[str | float | int | bool, ...] = ()

    @model_validator(mode="after")
    def _range_or_choices(self) -> "Knob":
        if bool(self.choices) == (self.low is not None and self.high is not None):
            raise ValueError("a knob needs either low and high, or choices")
        if self.choices or self.low is None or self.high is None:
            return self
        if not self.low < self.high:  # so that NaN is refused too
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range must be above 0, got low={self.low}")
        return self


class Design(Value):
    """One complete training run: template, network, the settings that depend on the data, and what to tune."""

    template: str = Field(description="a name from the catalogue")
    preset: str = Field(default="default", description="a preset of the template: what the other fields leave open")
    network: str = Field(description="a name from the catalogue that serves this task and number of dimensions")
    dims: Literal[2, 3]
    channels: int = Field(default=1, ge=1, le=16)
    size: tuple[int, ...] = Field(description="voxels: the input size (classification) or the patch (segmentation)")
    spacing: tuple[float, ...] | None = Field(
        default=None, description="mm, to resample to; None: keep the grid (segmentation) or fit it to `size`"
    )
    intensity: Literal["window", "percentile", "zscore", "unit"] = Field(
        description="window: a fixed range, CT in HU; percentile: per image, mixed units; zscore: per image, MR; unit: "
        "8-bit pictures as they are (anomaly_detection only)"
    )
    window: tuple[float, float] | None = Field(default=None, description="the range in HU, with 'window' only")
    flips: tuple[int, ...] = Field(
        default=(), description="axes that may be mirrored; never left-right for sided labels"
    )
    augment: float = Field(default=0.5, ge=0, le=1, description="strength of the augmentation")
    loss: str = Field(description="a loss of the template")
    lr: float = Field(gt=0, lt=1)
    weight_decay: float = Field(default=1e-2, ge=0, lt=1)
    batch: int = Field(ge=1, le=512)
    epochs: int = Field(ge=1, le=10_000)
    crops: int = Field(default=4, ge=1, le=1000, description="segmentation: patches an image and epoch")
    shots: int | None = Field(default=None, ge=0, description="anomaly_detection: as in the plan")
    space: dict[str, Knob] = Field(default_factory=dict, description="setting -> what Optuna may try; empty: no tuning")
    why: str = Field(default="", description="one sentence a radiologist can follow")

    @model_validator(mode="after")
    def _axes(self) -> "Design":
        for name, axes in (("size", self.size), ("spacing", self.spacing)):
            if axes is not None and len(axes) != self.dims:
                raise ValueError(f"{name} has {len(axes)} entries, dims is {self.dims}")
        if (self.intensity == "window") != (self.window is not None):
            raise ValueError("window is given with intensity 'window', and only then")
        if any(axis not in range(self.dims) for axis in self.flips):
            raise ValueError(f"flips names axes of a {self.dims}D image, 0 to {self.dims - 1}; got {list(self.flips)}")
        return self


class NetworkEntry(Value):
    """A network in the catalogue."""

    name: str
    task: Task
    dims: tuple[int, ...]
    size: Literal["small", "strong"]
    about: str
    pretrained: bool = Field(
        default=False, description="starts from weights that were given, and serves only with them"
    )
    template: str | None = Field(
        default=None,
        description="the template that it belongs to, which has no other; None: any that has none of its own",
    )


class TemplateEntry(Value):
    """A template in the catalogue: `settings` may be tuned, each with its default as Python text."""

    name: str
    task: Task
    about: str
    losses: tuple[str, ...]
    settings: dict[str, str]
    presets: tuple[str, ...] = ("default",)
    needs: str | None = Field(
        default=None, description="the package that does its work and plans it; for requests that ask for it by name"
    )


class Catalogue(Value):
    """What the Module Architect may choose from."""

    templates: tuple[TemplateEntry, ...]
    networks: tuple[NetworkEntry, ...]


# ------------------------------------------------------------------------------------------------ Outcome
class Trial(Value):
    """One Optuna trial."""

    number: int
    state: Literal["complete", "pruned", "failed"]
    score: float | None = Field(default=None, description="best mean of the validation scores of three epochs in a row")
    settings: dict[str, float | int | bool | str]
    curve: tuple[float, ...] = Field(default=(), description="validation score an epoch")
    seconds: float = 0.0


class Tuned(Value):
    """What tuning found."""

    trials: tuple[Trial, ...] = ()
    settings: dict[str, float | int | bool | str] = Field(
        default_factory=dict, description="of the best trial; empty: the design's own"
    )


class Score(Value):
    """A number on held-out cases with its 95 % interval (bootstrap over patients)."""

    value: float
    low: float
    high: float


class Success(Value):
    """How often something succeeded, with its 95 % Wilson interval."""

    successes: int
    runs: int
    low: float
    high: float


class Grade(Value):
    """What the examiner found, from the predictions and labels that the script never saw."""

    metric: str = Field(description="the metric that decides, e.g. 'macro AUROC' or 'mean Dice'")
    score: Score
    floor: Score = Field(description="the trivial answer: majority class, mean training mask, or random features")
    control: Score | None = Field(default=None, description="the same pipeline trained on shuffled labels")
    dealt: Score | None = Field(default=None, description="the same answers, dealt to other patients")
    others: dict[str, Score] = Field(default_factory=dict, description="further metrics")
    per_label: dict[str, Score] = Field(default_factory=dict)
    surfaces: dict[str, Score] = Field(default_factory=dict, description="segmentation: NSD of each label")
    confusion: tuple[tuple[int, ...], ...] = Field(default=(), description="classes: rows truth, columns answer")
    cases: int
    patients: int
    missing: tuple[str, ...] = Field(
        default=(), description="test cases without a well-formed prediction; each scores 0"
    )
    s1: bool = Field(description="valid checkpoint and a well-formed prediction for every test case")
    s2: bool = Field(description="beats the floor and every control, one-sided paired bootstrap over patients, 95 %")
    s3: bool | None = Field(default=None, description="reaches 90 % of the reference; None: there is no reference")
    reference: float | None = Field(default=None, description="score of the dataset's reference recipe")
    oracle: float | None = Field(default=None, description="the best score that a phantom allows")
    above_oracle: bool = Field(default=False, description="better than the phantom allows: a leak")
    worst: tuple[str, ...] = Field(default=(), description="ids of the worst cases, worst first")
    notes: tuple[str, ...] = Field(default=(), description="what could not be measured")


class Outcome(Value):
    """How a run ended."""

    status: Literal["done", "refused", "failed"]
    reason: str = ""
    grade: Grade | None = None
    settings: dict[str, float | int | bool | str] = Field(
        default_factory=dict, description="the settings of the delivered model"
    )
    trials: int = 0
    seconds: dict[str, float] = Field(default_factory=dict, description="stage -> wall time")
    calls: int = Field(default=0, description="calls to language models")
    dollars: float | None = Field(default=0.0, description="None where a model's price is not known")
    program: str = Field(default=AS_WRITTEN, description="name and hash of the compiled program")
    contained: bool = Field(default=True, description="every script ran inside the sandbox")
    phantom: bool = Field(default=False, description="made-up data: the score says nothing about patients")
