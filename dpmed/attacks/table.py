"""The attacks by name, one line each. Imports nothing heavy, since the command line lists the names."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpmed.errors import InputError

if TYPE_CHECKING:
    from dpmed.attacks.base import AttackSettings

# Name -> module and class of the settings, which prepare the attack.
ATTACKS = {
    "auto": "malicious_server.attack:BlockSettings",
    "trap-weights": "malicious_server.attack:BlockSettings",
    "imprint": "malicious_server.attack:BlockSettings",
    "peeling": "malicious_server.attack:BlockSettings",
    "prior-aware": "prior_aware.attack:PriorAwareSettings",
    "inversion": "inversion:InversionSettings",
}


def read_settings(attack: str, given: Mapping[str, Any]) -> "AttackSettings":
    """The settings of an attack.

    Args:
        attack: its name.
        given: settings by name; None counts as not given.

    Raises:
        InputError: there is no attack of that name, or a setting is not used or out of range; the message names it.
    """
    from pydantic import ValidationError

    from dpmed.fields import explain

    if attack not in ATTACKS:
        raise InputError(f"{attack!r} is not one of {', '.join(ATTACKS)}", where="attack")
    module, name = ATTACKS[attack].split(":")
    settings: type[AttackSettings] = getattr(import_module(f"dpmed.attacks.{module}"), name)
    chosen = {key: value for key, value in given.items() if value is not None}
    try:
        return settings(attack=attack, **chosen)
    except ValidationError as error:
        field, problem = explain(error)
        if field not in settings.model_fields:
            raise InputError(f"is not used by the attack {attack}", where=field, remedy="Leave it out.") from error
        raise InputError(problem, where=field) from error
