"""Step 3 of ModelDiff: distinguishing training directions, and how much they explain."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.differences import PlainMatrix
from dmstore.analysis.geometry.dims import with_dims
from dmstore.analysis.geometry.normalize import normalize
from dmstore.analysis.geometry.similarity import aligned
from dmstore.analysis.geometry.subspace import leading_directions
from dmstore.errors import InputError


def pca(
    residuals: xr.Dataset, *, components: int = 10, center: bool = True, random_state: int = 0
) -> xr.Dataset:
    """Principal components of residual datamodels (paper Eq. 4).

    Parameters
    ----------
    residuals : Dataset
        From :func:`dmstore.analysis.residual`.
    components : int
    center : bool
        Subtract the mean residual first, as PCA does; without, a difference that is common to all
        targets can be a direction too.
    random_state : int
        Starts the search where both dims exceed 1500; directions do not depend on it beyond rounding.

    Returns
    -------
    xarray.Dataset
        ``direction`` (component, train) unit vectors, signed so that the target furthest along
        each lies on its positive side; ``projection`` (component, target), uncentred, NaN for
        excluded targets; ``residual_variance`` (component,) share of the residuals' variance, exactly 0 for
        directions along which residuals are no longer than rounding makes them (their attribute ``rounding``):
        residuals of rank r have r directions, and those after are noise.

    Raises
    ------
    InputError
        If fewer than two targets are included, or `components` is not positive.
    """
    if not isinstance(residuals, xr.Dataset) or not {"residual", "included"} <= set(residuals):
        msg = "pca takes the dataset that dmstore.analysis.residual(a, b) gives, with 'residual' and 'included'"
        raise InputError(msg)
    rows = with_dims(residuals["residual"], "target", "train")
    included = residuals["included"].values.astype(bool)
    values = np.asarray(rows.values, dtype=np.float64)[included]
    check_counts(len(values), components)
    mean = values.mean(axis=0) if center else np.zeros(values.shape[1])
    shifted = values - mean
    count = min(components, *shifted.shape)
    directions = leading(shifted, count, random_state)
    along = values @ directions.T
    sign = signs(along)
    rounding = residuals.attrs.get("rounding", np.finfo(np.float64).eps)
    shares = residual_shares(along - directions @ mean, float((shifted**2).sum()), rounding)
    projection = np.full((count, len(included)), np.nan)
    projection[:, included] = (along * sign).T
    return xr.Dataset(
        {
            "direction": (("component", "train"), directions * sign[:, None]),
            "projection": (("component", "target"), projection),
            "residual_variance": ("component", shares),
        },
        coords={name: rows.coords[name] for name in ("train", "target") if name in rows.coords},
        attrs={"center": int(center), "components": count},
    )


def check_counts(targets: int, components: int) -> int:
    """Refuse fewer than two targets, or no components; the number of targets."""
    if targets < 2 or components < 1:
        msg = f"{targets} targets with non-zero datamodels and {components} components: both must be larger; take scores of more targets, or train more runs"
        raise InputError(msg)
    return targets


def signs(along: NDArray[np.float64]) -> NDArray[np.float64]:
    """Which way each direction points so that the target furthest along it, of (target, component), is on its positive side."""
    furthest = along[np.argmax(np.abs(along), axis=0), np.arange(along.shape[1])]
    return np.where(furthest < 0, -1.0, 1.0)


def residual_shares(
    centred: NDArray[np.float64], energy: float, rounding: float
) -> NDArray[np.float64]:
    """Shares of the residuals' energy along directions; exactly 0 where rounding explains all of it.

    Parameters
    ----------
    centred : (target, component) float64
        Residuals along each direction, less their mean where that was taken off.
    energy : float
        Sum of squares of the residuals, centred alike.
    rounding : float
        Length that a residual reaches by rounding alone.
    """
    singular = np.linalg.norm(centred, axis=0)
    beyond = singular > rounding * np.sqrt(len(centred))
    whole = max(energy, float((singular**2).max(initial=0)))
    return np.where(beyond, singular**2 / whole if whole > 0 else 0.0, 0.0)


def leading(rows: NDArray[np.float64], count: int, random_state: int) -> NDArray[np.float64]:
    """Leading right singular vectors.

    Parameters
    ----------
    rows : (target, train) float64
    count : int
    random_state : int
        See :func:`dmstore.analysis.geometry.subspace.leading_directions`.

    Returns
    -------
    (component, train) float64
        Orthonormal.
    """
    return leading_directions(PlainMatrix(rows), count, random_state)


def explained_variance(weight: xr.DataArray, direction: xr.DataArray) -> xr.DataArray:
    """Share of datamodels' variance along directions: mean over targets of (unit row . u)^2.

    Uncentred, as in Proposition 1; all-zero rows are left out.

    Parameters
    ----------
    weight : (target, train) float
    direction : (component, train) or (train,) float

    Returns
    -------
    (component,) or () float64
        In the dims of `direction`, without ``train``; lazy where `weight` is.

    Raises
    ------
    InputError
        If the dims are not those, or train units differ.
    """
    weight = with_dims(weight, "target", "train")
    one = isinstance(direction, xr.DataArray) and direction.dims == ("train",)
    directions = with_dims(
        direction.expand_dims("component") if one else direction, "component", "train"
    )
    both = "train" in weight.coords and "train" in directions.coords
    if weight.sizes["train"] != directions.sizes["train"] or (
        both and not np.array_equal(weight["train"].values, directions["train"].values)
    ):
        msg = f"directions over {directions.sizes['train']} train units, datamodels over {weight.sizes['train']}: they do not have the same train ids; take both from one study"
        raise InputError(msg)
    unit = normalize(weight)
    # Rows that are all zero add nothing to the sum.
    count = (unit != 0).any("train").sum("target")
    along = xr.dot(
        unit.drop_vars("train", errors="ignore"),
        directions.drop_vars("train", errors="ignore").astype(np.float64),
        dim="train",
    )
    shares: xr.DataArray = (along**2).sum("target") / count.where(count > 0)
    shares = shares.drop_vars(list(shares.coords)).rename("explained_variance")
    return shares.isel(component=0) if one else shares


def explained(rows: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over unit rows (target, train) of their squares along directions (component, train).

    NaN without rows.
    """
    if not len(rows):
        return np.full(len(directions), np.nan)
    variances: NDArray[np.float64] = ((rows @ directions.T) ** 2).mean(axis=0)
    return variances


def delta(a: xr.DataArray, b: xr.DataArray, direction: xr.DataArray) -> xr.DataArray:
    """Explained variance gap of Proposition 1 on unit rows, as a mean over targets that have a
    datamodel under both algorithms.

    On raw rows, the difference in sensitivity of Appendix A is a quarter of the gap: with inclusion
    probabilities (1 + u_i) / 2 an output shifts by (theta . u) / 2.

    Parameters
    ----------
    a, b : (target, train) float
    direction : (component, train) or (train,) float

    Returns
    -------
    (component,) or () float64
        In the dims of `direction`, without ``train``.

    Raises
    ------
    InputError
        If train units or targets differ.
    """
    a, b = aligned(a, b)
    common = (a != 0).any("train") & (b != 0).any("train")
    gap = explained_variance(a.where(common, 0), direction) - explained_variance(
        b.where(common, 0), direction
    )
    return gap.rename("delta")
