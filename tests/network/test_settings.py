import dataclasses
from pathlib import Path

import pytest

from crowdnerf_lab.network.delivery.broadcast_settings import BroadcastSettings
from crowdnerf_lab.network.settings import ServiceSettings, SettingsError
from crowdnerf_lab.network.updates.update_settings import UpdateSettings


def test_the_environment_carries_every_setting():
    updates = UpdateSettings(refine_steps=7, students=("ray_mlp XS",))
    settings = ServiceSettings(
        Path("/somewhere"),
        events=("a", "b"),
        train=False,
        burst=3,
        updates=updates,
        broadcast=BroadcastSettings(port=9000),
    )
    assert ServiceSettings.from_environment(settings.to_environment()) == settings
    assert len(settings.to_environment()) == len(dataclasses.fields(ServiceSettings))


def test_what_is_not_given_is_as_documented():
    assert ServiceSettings.from_environment({"CROWDNERF_HOME": "/somewhere"}) == ServiceSettings(Path("/somewhere"))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("HOME", "", "CROWDNERF_HOME is not set"),
        ("BURST", "0", "burst"),
        ("TOKEN_HOURS", "nan", "token_hours"),
        ("TOKEN_HOURS", "-1", "token_hours"),
        ("MAX_UPLOAD_BYTES", "many", "max_upload_bytes"),
        ("EVENTS", "concert", "CROWDNERF_EVENTS is not JSON"),
        ("EVENTS", '"concert"', "no JSON list"),
        ("UPDATES", '{"refine": 1}', "'refine'"),
        ("UPDATES", '{"refine_seconds": "soon"}', "refine_seconds"),
        ("BROADCAST", '{"port": 70000}', "broadcast.port"),
        ("BROADCAST", '{"volume": 11}', "'volume'"),
        ("TRAIN", "perhaps", "train"),
    ],
)
def test_a_setting_that_cannot_be_is_named(name, value, told):
    with pytest.raises(SettingsError, match=told):
        ServiceSettings.from_environment({"CROWDNERF_HOME": "/somewhere", f"CROWDNERF_{name}": value})
