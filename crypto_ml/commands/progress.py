"""A bar for work that takes long, where somebody looks: on a terminal, and nowhere else."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from crypto_ml.commands.printing import in_rich
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.stages.progress import amount


@contextmanager
def bar() -> Iterator[Tell]:
    """Who shows progress on standard error as a bar that is gone in the end; nobody, where that is no terminal."""
    if not sys.stderr.isatty():  # loading rich takes a tenth of what a small file does
        yield tell_nobody
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield tell_nobody
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[far]}"), TimeElapsedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        shown = ""

        def tell(progress: Progress) -> None:
            nonlocal shown
            if progress.what != shown:  # one bar at a time: what was before is over
                for task in list(bars.task_ids):
                    bars.remove_task(task)
                bars.add_task(in_rich(progress.what), total=progress.total, far="")
                shown = progress.what
            far = f"{amount(progress)} {progress.note}".rstrip()
            bars.update(bars.task_ids[-1], completed=progress.done, total=progress.total, far=far)

        yield tell
