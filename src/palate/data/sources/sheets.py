"""Tables as people keep them: CSV with any separator, TSV, JSON Lines, Parquet and .xlsx workbooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from palate.data.sources.parquet import parquet_rows, require_once
from palate.data.sources.texts import csv_rows, json_lines, text_lines
from palate.errors import DataError, MissingExtraError

_SEPARATORS: Final = ",;\t"


def table_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line and cells by name, as text, of a table whose kind its suffix says.

    Lines count from 1 and the header is line 1; rows of Parquet count from 0. CSV may be separated by
    commas, semicolons or tabs: what the header has most of. Empty cells of other kinds are empty texts.
    """
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv", ".txt", ""}:
        yield from csv_rows(path, separator(path))
        return
    reader = _READERS.get(suffix)
    if reader is None:
        known = ", ".join((".csv", ".tsv", *_READERS))
        raise DataError(f"{path}: tables are read from {known}")
    for line, cells in reader(path):
        yield line, {name: _text(cell) for name, cell in cells.items()}


def separator(path: Path) -> str:
    """Return what separates the cells of a CSV file's header: comma, semicolon or tab."""
    header = next(iter(text_lines(path)), "")
    return max(_SEPARATORS, key=header.count)


def _text(cell: object) -> str:
    if cell is None:
        return ""
    # a workbook has whole numbers as 3.0
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def sheet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line (from 1; the header is line 1) and cells by name of the first sheet of a workbook."""
    try:
        openpyxl: Any = import_module("openpyxl")
    except ModuleNotFoundError:
        raise MissingExtraError(f"reading {path.name}", "sheets") from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as fault:  # noqa: BLE001 - openpyxl raises what zip, XML and its own code raise
        raise DataError(f"{path}: is no workbook, or a damaged one ({fault})") from None
    try:
        header: list[str] = []
        for line, cells in enumerate(_sheet_cells(path, book), start=1):
            if all(cell is None for cell in cells):
                continue
            if not header:
                header = ["" if cell is None else str(cell) for cell in cells]
                require_once(path, [name for name in header if name])
                continue
            # cells below no header are no columns
            yield line, {name: cell for name, cell in zip(header, cells, strict=False) if name}
    finally:
        book.close()


def _sheet_cells(path: Path, book: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the cells of the first sheet, line by line; its XML is read only now."""
    try:
        yield from book.worksheets[0].iter_rows(values_only=True)
    except Exception as fault:  # noqa: BLE001 - as above
        raise DataError(f"{path}: is no whole workbook ({fault})") from None


_READERS: Final[dict[str, Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]]] = {
    ".jsonl": json_lines,
    ".parquet": parquet_rows,
    ".xlsx": sheet_rows,
}
