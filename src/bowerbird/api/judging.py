"""What becomes of runs: diagnosed, measured, compared."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bowerbird import config, machine, trust
from bowerbird.diagnosis import Finding, diagnose_run
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.request import Measuring
from bowerbird.media import open_data
from bowerbird.metrics.measurement import Measurement
from bowerbird.shipped import folder_of
from bowerbird.training.rundir import RunDir, load_model

if TYPE_CHECKING:
    from bowerbird.metrics.closed_forms import Check


def diagnose(run_dir: Path | str) -> list[Finding]:
    """What went wrong with a run and what to do about it, roots first; empty when nothing was found."""
    return diagnose_run(run_dir)


def measure(
    targets: Path | str | Sequence[Path | str],
    request: Measuring = Measuring(),
    *,
    allow_plugin: bool = False,
    **changes: Any,
) -> dict[str, list[Measurement]]:
    """Measures run folders or folders of images against reference data, all under one protocol.

    ``changes`` are fields of the request, such as ``n_samples`` or ``metrics``.  Its ``against`` is a data source
    (default: the data that a run was trained on; required for folders of images).  Nothing is measured by an
    installation whose metrics do not reproduce known values.
    """
    from bowerbird.measuring import extractors
    from bowerbird.measuring.selftest import require_quick

    request = request.but(**changes)
    extractors.require_known(request.extractor)
    require_quick()
    wanted = machine.resolve_device(request.device)
    device = "cpu" if request.device == "auto" and wanted.type == "mps" else str(wanted)  # MPS lacks some operations
    with trust.allowing(allow_plugin):
        return {target: _measured(target, request, device) for target in several(targets)}


def _measured(target: str, request: Measuring, device: str) -> list[Measurement]:
    """The measurements of a run folder, or of a folder of images."""
    from bowerbird.measuring.folders import measure_folder
    from bowerbird.measuring.trained import measure_model

    folder = folder_of(target)
    if not (folder / "run.toml").is_file():
        return measure_folder(target, request, device)
    run = RunDir.open(folder).config()
    machine.keep_freed_memory()
    model, _ = load_model(folder, device, best=request.best)
    if request.against:
        return measure_model(model, open_data(_reference(run, folder, request.against)), request)
    data = opened_again(_with_truth(run.data), folder, f"bowerbird measure {folder} --against SRC")
    if _with_truth(run.data) == run.data:
        _require_the_same(folder, data.fingerprint)
    return measure_model(model, data, request)


def opened_again(data: config.Data, folder: Path, command: str) -> Any:
    """The data that a run was trained on; where they are no longer, the error names the ``command`` to give."""
    try:
        return open_data(data)
    except BowerbirdError as error:
        if Path(data.source).is_absolute() and not Path(data.source).exists():
            raise BowerbirdError(
                f"The data of {folder} are no longer at {data.source}; say where they are: {command}"
            ) from error
        raise


def _require_the_same(folder: Path, fingerprint: str) -> None:
    """BowerbirdError where a run's data are no longer those that it was trained on."""
    trained_on = RunDir(folder).record().get("data", {}).get("fingerprint", fingerprint)
    if trained_on != fingerprint:
        raise BowerbirdError(
            f"The data of {folder} have changed since it was trained on them (their fingerprint was {trained_on}, now "
            f"{fingerprint}); restore them, or measure against what is there now with --against SRC."
        )


def _with_truth(data: config.Data) -> config.Data:
    """Two styles that were learned from unrelated piles are measured in pairs: who made the data may know them."""
    return data if data.paired or data.from_ is None else replace(data, paired=True)


def several(one_or_more: Path | str | Sequence[Path | str]) -> list[str]:
    """A list, also of a single name."""
    return [str(one_or_more)] if isinstance(one_or_more, str | Path) else [str(one) for one in one_or_more]


def _reference(run: config.Run, folder: Path, source: str) -> config.Data:
    """Other data than a run was trained on, read as it reads: texts into its own tokens."""
    data = replace(run.data, source=source, modality="auto")
    if data == replace(run.data, modality="auto") or not (folder / "tokenizer.json").is_file():
        return data
    return replace(data, text=replace(data.text, tokenizer=str(folder)))


def self_test() -> tuple[list["Check"], list[str]]:
    """Recomputes known values of every metric; also says what is missing for those that were not checked."""
    from bowerbird.measuring import selftest

    return selftest.self_test()


def compare(
    recipes: str | Sequence[str],
    *,
    data: str = "digits",
    budget: str = "60s",
    seeds: int = 1,
    out: Path | str | None = None,
    measuring: Measuring = Measuring(n_samples=2000),
    **changes: Any,
) -> Path:
    """Trains every recipe on the same data under one budget, measures all alike, and returns the report's path.

    ``changes`` are fields of the request ``measuring``, such as ``n_samples`` or ``metrics``.
    """
    from bowerbird.comparing.compare import compare as compare_recipes

    request = measuring.but(**changes)
    return compare_recipes(
        several(recipes), data=data, budget=budget, seeds=seeds, out=Path(out) if out else None, measuring=request
    )
