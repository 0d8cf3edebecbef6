"""What several commands share: completion of configs, the console of a call."""

from types import SimpleNamespace

from dpmed.cli.shared.console import Console
from dpmed.cli.shared.options import complete_config, complete_override, console_of
from dpmed.config.shipped import shipped_folder


def test_completion_offers_the_shipped_configs_that_begin_so():
    files = {path.stem for path in shipped_folder().iterdir() if path.suffix == ".toml"}
    assert set(complete_config("")) == files
    assert complete_config("quickstart_") == sorted(name for name in files if name.startswith("quickstart_"))
    assert complete_config("nosuch") == []


def test_the_console_is_the_calls_own_and_learns_of_json():
    console = Console(quiet=True)
    assert console_of(SimpleNamespace(obj=console), json=True) is console
    assert console.json and console.silent
    assert not console_of(SimpleNamespace(obj=console)).json
    # As if a command were called without the app.
    assert isinstance(console_of(SimpleNamespace(obj=None)), Console)


def test_completion_offers_keys_and_then_their_values():
    assert complete_override("priv") == ["privacy."]
    assert complete_override("privacy.eps") == ["privacy.epsilon="]
    assert "privacy.clipping." in complete_override("privacy.clip")
    assert complete_override("privacy.noise_source=") == [
        "privacy.noise_source=os-entropy",
        "privacy.noise_source=seeded",
    ]
    assert complete_override("privacy.clipping=a") == ["privacy.clipping=adaptive", "privacy.clipping=automatic"]
    assert "model.name=resnet9" in complete_override("model.name=r")
    assert complete_override("data.download=t") == ["data.download=true"]
    assert complete_override("nosuch.key") == [] and complete_override("privacy.epsilon=") == []
