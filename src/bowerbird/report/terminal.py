"""The table of a comparison on a terminal: a column per recipe, because recipes are few and metrics many."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bowerbird.report.comparison import quality, read_comparison, rows_of, starved_runs, training_cost
from bowerbird.training.budget import compute_budget, describe_budget

_STYLES = {"best": "[bold green]* {}[/]", "tied": "~ {}", "": "{}"}


def print_comparison(folder: Path, console: Console) -> None:
    """Prints the table and the path of the report; ``*`` is the best, ``~`` not told apart from it."""
    comparison = read_comparison(folder)
    rows = rows_of(comparison)
    budget = describe_budget(compute_budget(comparison["plan"]["budget"]))
    table = Table(
        "",
        title=f"Trained for {budget} each",
        caption="* best   ~ within two standard errors of the best",
        title_justify="left",
        caption_justify="left",
    )
    for row in rows:
        table.add_column(escape(row.recipe), justify="right")
    for part in (quality(rows), training_cost(rows)):
        for line in part:
            name = " ".join(filter(None, (line.title, line.unit and f"({line.unit})", line.arrow)))
            marked = zip(line.texts, line.marks, strict=True)
            table.add_row(name, *(_STYLES[mark].format(escape(text)) for text, mark in marked))
        table.add_section()
    console.print(table)
    for row in rows:
        for error in row.errors:
            console.print(f"[red]{escape(row.recipe)} failed.[/] {escape(error)}", soft_wrap=True)
    for sentence in starved_runs(comparison):
        console.print(f"[yellow]note[/] {escape(sentence)}", soft_wrap=True)
    console.print(f"Report: {escape(str(folder / 'report.html'))}", soft_wrap=True)
