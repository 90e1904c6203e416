"""The types of ``dump_document`` and ``load_document``, kind by kind. Do not edit it by hand.

``python docs/typed_documents.py --write`` makes this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, overload

from dmstore.schema.typed_documents import (
    AboutDocument,
    AlgorithmDocument,
    ChangeDocument,
    ClaimDocument,
    ComparisonDocument,
    CompleteDocument,
    EvaluationDocument,
    FailureDocument,
    FitDocument,
    IndexDocument,
    ManifestDocument,
    OriginDocument,
    PlanDocument,
    RemovalDocument,
    ScoreComparisonDocument,
    SegmentDocument,
    StudyDocument,
    TagDocument,
    TargetsDocument,
    WorkerDocument,
)

Lists = tuple[str, ...]


class DumpDocument(Protocol):
    """The type of ``dump_document``: each kind takes its own document."""

    @overload
    def __call__(self, kind: Literal["about"], payload: AboutDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["algorithm"], payload: AlgorithmDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["change"], payload: ChangeDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["claim"], payload: ClaimDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["comparison"], payload: ComparisonDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["complete"], payload: CompleteDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["evaluation"], payload: EvaluationDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["failure"], payload: FailureDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["fit"], payload: FitDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["index"], payload: IndexDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["manifest"], payload: ManifestDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["origin"], payload: OriginDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["plan"], payload: PlanDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["removal"], payload: RemovalDocument) -> bytes: ...
    @overload
    def __call__(
        self, kind: Literal["score_comparison"], payload: ScoreComparisonDocument
    ) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["segment"], payload: SegmentDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["study"], payload: StudyDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["tag"], payload: TagDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["targets"], payload: TargetsDocument) -> bytes: ...
    @overload
    def __call__(self, kind: Literal["worker"], payload: WorkerDocument) -> bytes: ...


class LoadDocument(Protocol):
    """The type of ``load_document``: each kind gives its own document."""

    @overload
    def __call__(
        self, kind: Literal["about"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> AboutDocument: ...
    @overload
    def __call__(
        self, kind: Literal["algorithm"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> AlgorithmDocument: ...
    @overload
    def __call__(
        self, kind: Literal["change"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> ChangeDocument: ...
    @overload
    def __call__(
        self, kind: Literal["claim"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> ClaimDocument: ...
    @overload
    def __call__(
        self, kind: Literal["comparison"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> ComparisonDocument: ...
    @overload
    def __call__(
        self, kind: Literal["complete"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> CompleteDocument: ...
    @overload
    def __call__(
        self, kind: Literal["evaluation"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> EvaluationDocument: ...
    @overload
    def __call__(
        self, kind: Literal["failure"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> FailureDocument: ...
    @overload
    def __call__(
        self, kind: Literal["fit"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> FitDocument: ...
    @overload
    def __call__(
        self, kind: Literal["index"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> IndexDocument: ...
    @overload
    def __call__(
        self, kind: Literal["manifest"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> ManifestDocument: ...
    @overload
    def __call__(
        self, kind: Literal["origin"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> OriginDocument: ...
    @overload
    def __call__(
        self, kind: Literal["plan"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> PlanDocument: ...
    @overload
    def __call__(
        self, kind: Literal["removal"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> RemovalDocument: ...
    @overload
    def __call__(
        self, kind: Literal["score_comparison"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> ScoreComparisonDocument: ...
    @overload
    def __call__(
        self, kind: Literal["segment"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> SegmentDocument: ...
    @overload
    def __call__(
        self, kind: Literal["study"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> StudyDocument: ...
    @overload
    def __call__(
        self, kind: Literal["tag"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> TagDocument: ...
    @overload
    def __call__(
        self, kind: Literal["targets"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> TargetsDocument: ...
    @overload
    def __call__(
        self, kind: Literal["worker"], raw: bytes, where: str, *, lists: Lists = ()
    ) -> WorkerDocument: ...


def dumps_by_kind(function: Callable[..., bytes]) -> DumpDocument:
    """The same function, with the types of :class:`DumpDocument`."""
    return function


def loads_by_kind(function: Callable[..., Any]) -> LoadDocument:
    """The same function, with the types of :class:`LoadDocument`."""
    return function
