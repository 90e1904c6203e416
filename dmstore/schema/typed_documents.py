"""What each document says: a type a kind, made of ``store_schemas/``. Do not edit it by hand.

``python docs/typed_documents.py --write`` makes this module. A document has ``format_version`` and
``kind`` besides; ``dump_document`` adds them, and ``load_document`` checks them.
"""

from typing import Any, Literal, NotRequired, TypedDict

AlgorithmSampling = Literal["planned", "foreign"]
AlgorithmMasks = Literal["shared", "independent"]
AlgorithmSplit = Literal["eval"]
AlgorithmOutputDtype = Literal["float16", "float32", "float64", "int8", "int16", "int32", "int64"]
AlgorithmOutputDim = Literal["run", "target", "class"]
ChangeAction = Literal["remove", "restore", "task"]
ManifestAction = Literal["compact", "ingest", "vacuum", "retract", "restore"]
SegmentColumn = Literal["float64", "int64", "bool", "string"]
WorkerSampling = Literal["planned", "foreign"]


class AboutDocument(TypedDict):
    """about/NNNN.json: title, authors, licence, citation; the newest wins."""

    title: NotRequired[str]
    authors: NotRequired[list[str]]
    licence: NotRequired[str]
    citation: NotRequired[str]
    doi: NotRequired[str]
    created: NotRequired[str]


class AlgorithmOutput(TypedDict):
    """``outputs.*`` of the document ``algorithm``."""

    dtype: AlgorithmOutputDtype
    dims: list[AlgorithmOutputDim]
    function: str
    orientation: str
    units: str


class AlgorithmDocument(TypedDict):
    """algorithms/NAME/algorithm.json: how an algorithm trains; immutable."""

    name: str
    study: str
    uuid: str
    created: NotRequired[str]
    software: NotRequired[str]
    alpha: float | None
    sampling: AlgorithmSampling
    masks: AlgorithmMasks
    split: NotRequired[AlgorithmSplit]
    target_set: str
    outputs: dict[str, AlgorithmOutput]
    task: str | None
    config: dict[str, Any]


class ChangeDocument(TypedDict):
    """algorithms/NAME/changes/NNNN.json: what became of an algorithm after it was added. Creating it is the commit."""

    number: int
    algorithm: str
    action: ChangeAction
    reason: NotRequired[str]
    task: NotRequired[str]
    config: NotRequired[dict[str, Any]]
    created: NotRequired[str]
    software: NotRequired[str]
    token: str


class ClaimDocument(TypedDict):
    """algorithms/NAME/claims/<6 digits>-<12 digits>-<6 digits>.json: a worker that trains a few runs; a hint, by which nothing is decided that must be right."""

    algorithm: str
    host: str
    pid: int
    runs: list[int]
    created: NotRequired[str]
    token: str


class ComparisonDocument(TypedDict):
    """comparisons/<id>/comparison.json: what a comparison stands on; immutable."""

    comparison: str
    study: str
    algorithms: list[str]
    fits: list[str]
    content_ids: list[str]
    measured: NotRequired[list[str]]
    parameters: dict[str, Any]
    created: NotRequired[str]
    software: NotRequired[str]


class CompleteDocument(TypedDict):
    """complete.json: names the finished result beside it. Creating it is the commit."""

    path: str
    created: NotRequired[str]
    summary: NotRequired[dict[str, Any]]


class EvaluationDocument(TypedDict):
    """datamodels/NAME/<fit>/evaluation-<16 hex>.json or curve-<16 hex>-<8 hex>.json: statistical quality of a fit, or of fits to growing numbers of runs, on eval runs."""

    fit: str
    study: str
    algorithm: str
    content_id: str
    eval_runs: int
    parameters: NotRequired[dict[str, Any]]
    results: dict[str, Any]
    created: NotRequired[str]
    software: NotRequired[str]


class FailureDocument(TypedDict):
    """algorithms/NAME/failures/<19 digits>-<32 hex>.json: one attempt at a run that failed; immutable."""

    algorithm: str
    run: int
    error: str
    time: int
    host: str
    software: NotRequired[str]


class FitRuns(TypedDict):
    """``runs`` of the document ``fit``."""

    train: int
    holdout: int
    eval: int


class FitDocument(TypedDict):
    """datamodels/NAME/<fit>/fit.json: what a fit stands on; immutable."""

    fit: str
    study: str
    algorithm: str
    version: int
    base: str
    content_id: str
    runs: FitRuns
    targets: int
    target_set: str
    output: str
    parameters: dict[str, Any]
    created: NotRequired[str]
    software: NotRequired[str]


class IndexAlgorithmOutput(TypedDict):
    """``algorithms.*.outputs.*`` of the document ``index``."""

    version: int
    runs: int
    content_id: str


class IndexAlgorithmFull(TypedDict):
    """``algorithms.*.full.*`` of the document ``index``."""

    version: int
    runs: int
    content_id: str


class IndexAlgorithmRemoval(TypedDict):
    """``algorithms.*.removals.*`` of the document ``index``."""

    version: int
    runs: int
    content_id: str


class IndexAlgorithm(TypedDict):
    """``algorithms.*`` of the document ``index``."""

    version: int
    runs: int
    content_id: str | None
    outputs: NotRequired[dict[str, IndexAlgorithmOutput]]
    full: NotRequired[dict[str, IndexAlgorithmFull]]
    removals: NotRequired[dict[str, IndexAlgorithmRemoval]]


class IndexObject(TypedDict):
    """``objects[]`` of the document ``index``."""

    name: str
    size: int
    sha256: str


class IndexDocument(TypedDict):
    """index.json of a published study: every object with its length and sha256, so that no listing is needed."""

    study: str
    created: NotRequired[str]
    software: NotRequired[str]
    algorithms: dict[str, IndexAlgorithm]
    objects: list[IndexObject]


class ManifestBase(TypedDict):
    """``base`` of the document ``manifest``."""

    path: str
    runs: int
    content_id: str


class ManifestRetracted(TypedDict):
    """``retracted[]`` of the document ``manifest``."""

    run: int
    digest: str


class ManifestConflict(TypedDict):
    """``conflicts[]`` of the document ``manifest``."""

    run: int
    digest: str


class ManifestDocument(TypedDict):
    """log/<version>.json: a state of a table. Creating it is the commit."""

    version: int
    action: ManifestAction
    created: NotRequired[str]
    software: NotRequired[str]
    host: NotRequired[str]
    base: ManifestBase | None
    absorbed: list[str]
    removed: list[str]
    retracted: list[ManifestRetracted]
    conflicts: list[ManifestConflict]
    reason: NotRequired[str]
    token: NotRequired[str]


class OriginDocument(TypedDict):
    """origin.json of a pulled copy: where it comes from, and the number that keeps its own run ids apart."""

    source: str
    study: str
    pulled: str
    software: NotRequired[str]
    content_ids: dict[str, str | None]
    branch: int


class PlanDocument(TypedDict):
    """algorithms/NAME/plans/NNNN.json: a block of run ids."""

    block: int
    first_run: int
    runs: int
    first_mask: int
    repeats: int
    created: NotRequired[str]
    token: NotRequired[str]


class RemovalDocument(TypedDict):
    """algorithms/NAME/removals/<removal>/removal.json: which train units the models beside it are trained without, and how many of the others each sees; immutable."""

    removal: str
    algorithm: str
    units: list[int]
    seen: int
    created: NotRequired[str]
    software: NotRequired[str]


class ScoreComparisonSource(TypedDict):
    """``sources[]`` of the document ``score_comparison``."""

    file: str
    sha256: str
    format: str
    array: str
    shape: list[int]
    dtype: str
    orientation: str
    units: str
    zero_rows: int


class ScoreComparisonDocument(TypedDict):
    """comparison.json of a comparison of two score files, with no runs and no study: what it stands on; immutable."""

    comparison: str
    algorithms: list[str]
    sources: list[ScoreComparisonSource]
    examples: dict[str, Any]
    parameters: dict[str, Any]
    created: NotRequired[str]
    software: NotRequired[str]


class SegmentDocument(TypedDict):
    """The comment of a segment's zip: what it holds, so that listing a tail reads no arrays."""

    study: str
    algorithm: str
    table: str
    run: list[int]
    digest: str
    columns: dict[str, SegmentColumn]
    software: NotRequired[str]


class StudyTrain(TypedDict):
    """``train`` of the document ``study``."""

    count: int
    sha256: str


class StudyTarget(TypedDict):
    """``targets.*`` of the document ``study``."""

    count: int
    sha256: str


class StudyDocument(TypedDict):
    """study.json: what a study is; immutable."""

    uuid: str
    seed: int
    created: NotRequired[str]
    software: NotRequired[str]
    train: StudyTrain
    targets: dict[str, StudyTarget]
    classes: NotRequired[int]


class TagDocument(TypedDict):
    """tags/NAME.json: a name for a committed base."""

    name: str
    version: int
    base: str
    runs: NotRequired[int]
    content_id: str
    created: NotRequired[str]
    token: NotRequired[str]


class TargetsDocument(TypedDict):
    """targets/<set>.json: a target set added after the study was made; creating it is the commit."""

    name: str
    study: str
    count: int
    sha256: str
    path: str
    created: NotRequired[str]
    software: NotRequired[str]


class WorkerBlock(TypedDict):
    """``blocks[]`` of the document ``worker``."""

    first_run: int
    runs: int
    first_mask: int
    repeats: int


class WorkerOutput(TypedDict):
    """``outputs.*`` of the document ``worker``."""

    dtype: str
    shape: list[int]


class WorkerDocument(TypedDict):
    """A plan outside the study, for workers without dmstore: what 'dmstore export --to plan' writes and dmstore_writer.py reads."""

    study: str
    algorithm: str
    sampling: WorkerSampling
    seed: int
    key: int
    alpha: float | None
    train: int
    blocks: list[WorkerBlock]
    stored: list[list[int]]
    outputs: dict[str, WorkerOutput]
