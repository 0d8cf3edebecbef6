"""What `dpmed bounds` found, for files and for readers: each number is rounded to the side on which it stays true."""

from dataclasses import asdict, dataclass
from typing import Any

from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.tradeoff import Composition
from dpmed.rounding import rounded_down, rounded_up
from dpmed.workflows.bounds.settings import BoundsSettings, Row

_SHOWN = 12
_CONSTANT = "… constant sign"
_COLUMNS = (
    "“At least” is what one concrete test reaches; “TPR @ FPR 0.001” is the largest share of members that any test of "
    "membership finds if it takes one in 1,000 others for a member. ε tight and ε RDP are the same noise, counted in "
    "two ways."
)


@dataclass(frozen=True, kw_only=True)
class BoundsSummary:
    """What was found.

    Attributes:
        settings: as given.
        rows: a row per budget, as in bounds.csv.
        max_risk: a row per adversary for the inverse.
    """

    settings: BoundsSettings
    rows: tuple[Row, ...]
    max_risk: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of `bounds.json`."""
        settings = asdict(self.settings)
        measured, _ = settings.pop("attack_results"), settings.pop("mechanisms")
        found: dict[str, Any] = {"rows": list(self.rows), "settings": settings}
        if measured:
            found["attack_results"] = list(measured)
        if self.settings.max_risk is not None:
            found["max_risk"] = list(self.max_risk)
        return found

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal; from a long sweep, a selection of rows."""
        columns = ["ε", "σ", "ε tight", "ε RDP"]
        for adversary in self.settings.adversaries:
            columns += [f"{adversary} at most", *([_CONSTANT] * (adversary == "relaxed"))]
            columns += ["… at least", "… TPR @ FPR 0.001"]
        every = max(1, len(self.rows) // _SHOWN)
        rows = []
        for row in self.rows[::every]:
            cells = [
                "several" if row[name] is None else rounded_up(row[name])
                for name in ("epsilon", "noise_multiplier", "epsilon_pld", "epsilon_rdp")
            ]
            for adversary in self.settings.adversaries:
                name = adversary.replace("-", "_")
                cells.append(rounded_up(row[f"{name}_upper"]))
                if adversary == "relaxed":
                    cells.append(rounded_up(row["relaxed_constant_sign_upper"]))
                cells += [rounded_down(row[f"{name}_lower"]), rounded_up(row[f"{name}_tpr_at_fpr_0.001"])]
            rows.append(cells)
        return columns, rows

    def inverse_table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the inverse for the terminal; put back in, they keep the risk at or below its limit."""
        columns = ["adversary", "risk at most", "σ at least", "ε at most, tight", "ε at most, RDP"]
        rows = [
            [
                str(row["adversary"]),
                f"{row['max_risk']:g}",
                rounded_up(row["noise_multiplier"]),
                rounded_down(row["epsilon_pld"]),
                rounded_down(row["epsilon_rdp"]),
            ]
            for row in self.max_risk
        ]
        return columns, rows

    def notes(self) -> list[str]:
        """What must be known to read the tables, in sentences."""
        settings = self.settings
        chance = f"{settings.prior:.4g}"
        if settings.prior == 1 / settings.train_size:
            chance = f"1/{settings.train_size:,} = {chance}"
        notes = [f"κ = {chance}: the chance of guessing without the model; for a better-informed attacker: --prior."]
        if self.rows:
            notes.append(_COLUMNS)
        if "relaxed" in settings.adversaries:
            known = f"; “{_CONSTANT}” is the limit for one who knows that it does" if self.rows else ""
            notes.append(
                "The relaxed attacker does not know the sign of the gradient, nor that it stays the same from "
                f"step to step{known}. That is assumed, not guaranteed."
            )
        notes += [_with_constant_sign(settings, row) for row in self.max_risk if row["adversary"] == "relaxed"]
        return [*notes, *settings.notes]


def _with_constant_sign(settings: BoundsSettings, row: Row) -> str:
    found = constant_sign_upper(Composition.of(settings.all_steps(row["noise_multiplier"]), "relaxed"), settings.prior)
    return (
        f"At the relaxed attacker's σ, one who knows that the sign stays the same has a chance of up to "
        f"{rounded_up(found)}."
    )
