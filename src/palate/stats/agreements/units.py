"""Items that several people answered, as sums: all that a coefficient of agreement needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.intervals import Column, cluster_codes, person_codes

__all__ = ["NothingToCompareError", "Units", "ratio"]

_BLOCK: Final = 4_000_000

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


class NothingToCompareError(DataError):
    """No two people answered the same, or nobody answered what was asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Values of the items that have at least two, sorted by item, then value, then person.

    Per value: `item`, `code` (the value as a number from 0, its place in `levels`), `number` (on an interval
    scale, with the mean taken off) and `person`. Per item: `cluster`, `sizes` (values), `agreeing` (pairs of equal
    values). `known` of the `people` are known by name, those with the lowest numbers, and `names` holds
    their labels; every unknown one counts as another person. `left_out` counts items with a single value.
    `merge` (values × columns) adds up the columns of tables of values that only names tell apart.
    """

    item: Numbers
    code: Numbers
    number: Floats
    person: Numbers
    cluster: Numbers
    sizes: Numbers
    agreeing: Floats
    levels: NDArray[Any]
    known: int
    people: int
    names: tuple[Any, ...]
    left_out: int
    merge: Floats | None = None

    @classmethod
    def of(
        cls,
        items: Column,
        values: Column,
        raters: Column | None = None,
        clusters: Column | None = None,
        *,
        numbers: bool = False,
    ) -> Units:
        """Sort answers into items; refuses two values of one person, and items in two clusters."""
        given = np.asarray(values)
        count = len(given)
        if given.dtype.kind == "f" and np.isnan(given).any():
            raise DataError("a value is not a number; leave missing values out")
        if numbers and given.dtype.kind not in "biuf":
            raise DataError("values on an ordinal or interval scale are numbers")
        item = cluster_codes(items, count)
        person, labels_of_people = person_codes(raters, count)
        known = len(labels_of_people)
        sizes = np.bincount(item, minlength=1)
        kept = sizes[item] > 1
        if not kept.any():
            raise NothingToCompareError(
                f"none of {int((sizes > 0).sum()):,} items has the values of two people to compare"
            )
        item, person, given = cluster_codes(item[kept], int(kept.sum())), person[kept], given[kept]
        levels, code = np.unique(given, return_inverse=True)
        order = np.lexsort((person, code, item))
        item, person, code, given = item[order], person[order], code[order], given[order]
        by_person = np.lexsort((person, item))
        if ((np.diff(item[by_person]) == 0) & (np.diff(person[by_person]) == 0)).any():
            raise DataError("a person gave two values to one item, expected one")
        number = given.astype(np.float64) if numbers else code * 1.0
        # one cluster per item
        labels = item if clusters is None else cluster_codes(clusters, count)[kept][order]
        starts = np.flatnonzero(np.diff(item, prepend=-1))
        if (labels != labels[starts][item]).any():
            raise DataError("the answers to one item lie in two clusters, expected one")
        seen, people = np.unique(person, return_inverse=True)
        return cls(
            item=item,
            code=code,
            number=number - number.mean(),
            person=people.astype(np.int64),
            cluster=cluster_codes(labels[starts], len(starts)),
            sizes=np.bincount(item).astype(np.int64),
            agreeing=_agreeing(item, code),
            levels=levels,
            known=int((seen < known).sum()),
            people=len(seen),
            names=tuple(labels_of_people[k] for k in seen[seen < known]),
            left_out=int((sizes == 1).sum()),
        )

    @property
    def categories(self) -> int:
        """How many different values were given."""
        return len(self.levels)

    def with_middle_ranks(self) -> Units:
        """Return the same items with each number replaced by its middle rank among all values."""
        counts = np.bincount(self.code)
        ranks = np.cumsum(counts) - counts / 2
        return replace(self, number=ranks[self.code] - ranks[self.code].mean())

    def one_hot(self, codes: Numbers, categories: int) -> Any:
        """Return a table with one value per item, as `interval_of` takes it."""
        from scipy.sparse import csr_array

        rows = np.arange(len(codes))
        return csr_array((np.ones(len(codes)), (rows, codes)), shape=(len(codes), categories))

    def counts(self) -> Any:
        """Return how often every value was given to every item, as a sparse table."""
        from scipy.sparse import csr_array

        shape = (len(self.sizes), self.categories)
        return csr_array((np.ones(len(self.item)), (self.item, self.code)), shape=shape)

    def table(self, kind: Any) -> Any:
        """Return the sparse table of items and values: counts, shares, nothing, or the given one."""
        from scipy.sparse import csr_array, diags_array

        if not isinstance(kind, str):
            return kind
        if kind == "none":
            return csr_array((len(self.sizes), 0))
        found = self.counts() if kind == "count" else diags_array(1 / self.sizes) @ self.counts()
        return found if self.merge is None else csr_array(found @ csr_array(self.merge))

    def scalars(self, names: Sequence[str]) -> Floats:
        """Return the named numbers of every item, one column per name."""
        first, second = self._moments()
        apart = np.bincount(self.item, weights=(self.number - self._means()[self.item]) ** 2)
        return _scalars(names, self.sizes, self.agreeing, apart, first, second)

    def totals(self, names: Sequence[str], kind: Any) -> tuple[Floats, Floats]:
        """Return the sums over all items, as one draw."""
        scalars = self.scalars(names).sum(axis=0, keepdims=True)
        return scalars, np.asarray(self.table(kind).sum(axis=0), dtype=np.float64).reshape(1, -1)

    def changes(self, names: Sequence[str], kind: str, groups: Numbers) -> Iterator[Any]:
        """How the totals change when the values of one group are taken away, in blocks of groups.

        No two values of a group may lie in one item. An item left with one value goes too.
        """
        from scipy.sparse import csr_array

        size = self.sizes[self.item]
        first, second = self._moments()
        means = self._means()[self.item]
        apart = np.bincount(self.item, weights=(self.number - means) ** 2)[self.item]
        counts = self.counts()
        same = np.asarray(counts[self.item, self.code]).ravel()
        left = _scalars(
            names,
            size - 1,
            self.agreeing[self.item] - (same - 1),
            np.maximum(apart - (self.number - means) ** 2 * size / (size - 1), 0),
            first[self.item] - self.number,
            second[self.item] - self.number**2,
        )
        change = left - self.scalars(names)[self.item]
        total = int(groups.max()) + 1
        scalars = np.stack([np.bincount(groups, column) for column in change.T], axis=1)
        before = np.ones(len(size)) if kind == "count" else 1 / size
        after = np.where(size > 2, 1.0 if kind == "count" else 1 / (size - 1), 0.0)
        shape = (total, len(self.sizes))
        rows = csr_array((after - before, (groups, self.item)), shape=shape)
        own = csr_array((after, (groups, self.code)), shape=(total, counts.shape[1]))
        width = 0 if kind == "none" else counts.shape[1]
        step = max(1, _BLOCK // max(1, width))
        for start in range(0, total, step):
            part = slice(start, start + step)
            sums = np.zeros((len(scalars[part]), 0))
            if width:
                sums = (rows[part] @ counts).toarray() - own[part].toarray()
                sums = sums if self.merge is None else sums @ self.merge
            yield scalars[part], sums

    def _moments(self) -> tuple[Any, Any]:
        first = np.bincount(self.item, weights=self.number)
        return first, np.bincount(self.item, weights=self.number**2)

    def _means(self) -> Floats:
        return np.bincount(self.item, weights=self.number) / self.sizes


def ratio(part: Floats, whole: Floats) -> Floats:
    """Divide; what is divided by zero is not a number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(whole == 0, np.nan, part / whole)
    return found


def _agreeing(item: Numbers, code: Numbers) -> Floats:
    """Pairs of equal values per item, of values sorted by item and code."""
    new = (np.diff(item, prepend=-1) != 0) | (np.diff(code, prepend=-1) != 0)
    starts = np.flatnonzero(new)
    runs = np.diff(np.append(starts, len(item)))
    pairs: Any = np.bincount(item[starts], weights=runs * (runs - 1) / 2)
    return np.asarray(pairs, dtype=np.float64)


def _scalars(
    names: Sequence[str], size: Numbers, agreeing: Floats, apart: Any, first: Any, second: Any
) -> Floats:
    """The named numbers of items, 0 where an item has fewer than two values.

    `apart` is the sum of squared distances to the item's mean, `first` and `second` the sums of the
    numbers and of their squares.
    """
    m: Any = size.astype(np.float64)
    pairs: Any = np.maximum(m * (m - 1) / 2, 1)
    every = {
        "one": np.ones(len(m)),
        "pairs": pairs,
        "agreeing": agreeing,
        "agreement": agreeing / pairs,
        "size": m,
        "disagreement": m * (1 - agreeing / pairs),
        "spread": 2 * m / np.maximum(m - 1, 1) * apart,
        "sum": first,
        "square": second,
    }
    return np.stack([np.where(m > 1, every[name], 0.0) for name in names], axis=1)
