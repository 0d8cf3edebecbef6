"""`dpmed export`: from a run folder to a bundle that may leave the institution, or a refusal."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import CONFIG_FILE, read_json
from dpmed.inference.bundle.files import CHECKSUMS_FILE, NEEDED, StoredModel, is_bundle, write_bundle
from dpmed.inference.bundle.model_card import PUBLIC_DATA, CardFacts, Together, write_card
from dpmed.inference.bundle.onnx import ONNX_FILE, STABLEHLO_FILE, to_onnx, to_stablehlo
from dpmed.inference.composed_ledger import composed_with
from dpmed.inference.ledger import LEDGER_FILE, ReadLedger, check_epsilon, check_finished
from dpmed.inference.run_folder import SUMMARY_FILE, is_run, read_config, read_run
from dpmed.planning.solved_budget import solve
from dpmed.privacy.mechanism import counted
from dpmed.progress import Progress
from dpmed.rounding import stated_budget
from dpmed.workflows.train.trials import chosen_trial, holds_selection

Format = Literal["safetensors", "onnx", "stablehlo"]
FORMATS: tuple[Format, ...] = ("safetensors", "onnx", "stablehlo")
# Versions of dpmed may calibrate to slightly different noise.
_SAME_PLAN = 0.01
_CONVERT = {"onnx": (ONNX_FILE, to_onnx), "stablehlo": (STABLEHLO_FILE, to_stablehlo)}
# Where the runs of a folder of several lie.
_DEPTHS = (f"*/{CONFIG_FILE}", f"*/*/{CONFIG_FILE}")
_MOST_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What was exported.

    Attributes:
        folder: the bundle.
        files: its files.
        epsilon: the ε that the model promises; None if it promises none.
        delta: δ.
        has_siblings: whether other runs were made together with it.
        together: what all of them spend; None without siblings, or if they are not beside it.
        warning: why the bundle must stay inside; None if it need not.
    """

    folder: Path
    files: tuple[str, ...]
    epsilon: float | None
    delta: float | None
    has_siblings: bool
    together: Together | None
    warning: str | None

    def describe(self) -> dict[str, str]:
        """The summary as names and values, for the user."""
        promise = "none"
        if self.epsilon is not None and self.delta is not None:
            promise = stated_budget(self.epsilon, self.delta)
        found = {"files": ", ".join(self.files), "privacy": promise}
        if self.epsilon is not None and self.has_siblings:
            found["if chosen as the best"] = self._if_chosen()
        return found

    def _if_chosen(self) -> str:
        known = self.together
        if known is None:
            return "larger, but unknown: the other runs' ledgers are not beside it"
        exposed = f"no ε covers a choice among runs without one ({known.others} beside it)"
        if known.runs == 1:
            return exposed
        joint = f"{stated_budget(known.epsilon, known.delta)}, {known.runs} runs together"
        return f"{joint}; {exposed}" if known.others else joint

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON types."""
        return {
            "folder": str(self.folder),
            "files": list(self.files),
            "epsilon": self.epsilon,
            "delta": self.delta,
            "epsilon_if_chosen": None if self.together is None or self.together.runs == 1 else self.together.epsilon,
            "private": self.warning is None,
            "warning": self.warning,
        }


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What to export.

    Attributes:
        run: the run folder.
        formats: besides safetensors, which is always written.
        not_private: export even if the model promises nothing.
        include_metrics: state test metrics of private data on the card, marked as such.
    """

    run: Path
    formats: tuple[Format, ...] = ()
    not_private: bool = False
    include_metrics: bool = False


def check(settings: ExportSettings, progress: Progress) -> StoredModel:
    """The model of a run that may be exported; nothing is written.

    Raises:
        InputError: the run has not finished, its ledger belongs to other files, states another ε than its steps cost or
            another noise than its config plans, or it is not private and the settings do not say so.
    """
    folder = settings.run
    _refuse_several(folder)
    if is_bundle(folder):
        remedy = "Copy the folder, or export its run."
        raise InputError("is a bundle already", where=str(folder), remedy=remedy)
    config = read_config(folder)
    stored = read_run(folder, progress=progress)
    check_finished(stored.ledger, folder=folder)
    check_epsilon(stored.ledger, where=str(folder / LEDGER_FILE))
    _check_plan(config, stored.ledger, where=str(folder / LEDGER_FILE))
    reason = stored.ledger.reason_against_release
    if reason is not None and not settings.not_private:
        raise InputError(
            f"must not leave the institution: {reason}",
            where=str(folder),
            remedy="If the bundle stays inside, export it with --not-private: its card then says so at the top.",
        )
    return stored


def _check_plan(config: Config, ledger: ReadLedger, *, where: str) -> None:
    """Refuse the ledger of a training that the config beside it does not plan.

    Raises:
        InputError: noise, sampling rate, steps, δ or what is protected differ; the message states both.
    """
    budget = solve(config, ledger.train_size) if ledger.promises else None
    if budget is None or config.privacy is None:
        return
    close: dict[str, Any] = {"sampling_rate": budget.sampling_rate, "noise_multiplier": budget.noise_multiplier}
    equal: dict[str, Any] = {"steps": budget.steps, "delta": budget.delta, "unit_of_privacy": config.unit}
    if ledger.noise_source == "os-entropy":
        equal["noise_source"] = config.privacy.noise_source
    differing = [
        name for name, value in close.items() if not math.isclose(getattr(ledger, name), value, rel_tol=_SAME_PLAN)
    ]
    differing += [name for name, value in equal.items() if getattr(ledger, name) != value]
    if differing:
        name = differing[0]
        stated, planned = (_shown(one) for one in (getattr(ledger, name), {**close, **equal}[name]))
        raise InputError(
            f"states {name} = {stated}, but for {ledger.train_size:,} training records config.toml plans {planned}",
            where=where,
            remedy="One of the two was changed after the run; take both from the finished run.",
        )


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def run(settings: ExportSettings, stored: StoredModel, folder: Path, progress: Progress) -> ExportSummary:
    """Write the bundle.

    Args:
        settings: what to export.
        stored: as returned by `check`.
        folder: an empty folder.
        progress: reports to the user.

    Raises:
        InputError: the extra for a format is not installed.
        RunError: a network cannot be converted, or a file cannot be written.
    """
    more: dict[str, bytes] = {}
    for name in dict.fromkeys(settings.formats):
        if name == "safetensors":
            continue
        progress.say(f"Converting to {name} …")
        file, convert = _CONVERT[name]
        more[file] = convert(stored.network, stored.description)
    files = (*sorted((*NEEDED, *more)), CHECKSUMS_FILE)
    config = read_config(settings.run)
    metrics, intervals = _metrics(settings, config)
    promises = stored.ledger.promises
    together = _together(settings.run, stored.ledger)
    facts = CardFacts(
        description=stored.description,
        ledger=stored.ledger,
        data_name=config.data.name,
        training=_training(config),
        metrics=metrics,
        intervals=intervals,
        files=files,
        together=together,
    )
    write_bundle(
        folder,
        description=stored.description,
        network=stored.network,
        ledger=(settings.run / LEDGER_FILE).read_bytes(),
        card=write_card(facts),
        more=more,
    )
    return ExportSummary(
        folder=folder,
        files=files,
        epsilon=stored.ledger.epsilon if promises else None,
        delta=stored.ledger.delta if promises else None,
        has_siblings=bool(stored.ledger.siblings),
        together=together,
        warning=stored.ledger.reason_against_release,
    )


def _refuse_several(folder: Path) -> None:
    """Refuse a folder that holds several runs, and name them; of a selection only the one that it chose.

    Raises:
        InputError: the folder holds several runs.
    """
    if is_run(folder):
        return
    if holds_selection(folder):
        chosen = chosen_trial(folder)
        remedy = (
            "Continue it with the command that began it."
            if chosen is None
            else f"Export the one that it chose: {chosen}"
        )
        raise InputError("is a selection, not a run", where=str(folder), remedy=remedy)
    found = sorted(path.parent for depth in _DEPTHS for path in folder.glob(depth))
    if found:
        names = ", ".join(map(str, found[:_MOST_NAMED])) + (", …" if len(found) > _MOST_NAMED else "")
        raise InputError("is a folder of runs, not a run", where=str(folder), remedy=f"Export one of them: {names}")


def _together(run: Path, ledger: ReadLedger) -> Together | None:
    found = composed_with(run, ledger.siblings) if ledger.promises and ledger.siblings else None
    if found is None or found.epsilon is None or found.delta is None:
        return None
    private = [one for one in found.runs if one.is_private]
    return Together(
        epsilon=found.epsilon,
        delta=found.delta,
        runs=len(private),
        others=len(found.runs) - len(private),
        mechanisms=counted(one.mechanism for one in private),
    )


def _training(config: Config) -> dict[str, str]:
    """What the config says about the training, in public terms."""
    training = config.training
    rate = f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}, schedule {config.schedule.name}"
    length = "as many epochs as ε and noise allow" if training.epochs is None else f"{training.epochs} epochs"
    return {
        "Loss": config.loss.name,
        "Optimizer": rate,
        "Length": f"{length}, expected batch size {training.batch_size}",
    }


def _metrics(settings: ExportSettings, config: Config) -> tuple[dict[str, float], dict[str, list[float]]]:
    if config.data.name not in PUBLIC_DATA and not settings.include_metrics:
        return {}, {}
    path = settings.run / SUMMARY_FILE
    summary = read_json(path)
    try:
        metrics = {str(name): float(value) for name, value in summary["test"].items() if value is not None}
        intervals = {str(name): [float(low), float(high)] for name, (low, high) in summary["test_interval"].items()}
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"contains no test metrics ({error!r})", where=str(path)) from error
    return metrics, intervals
