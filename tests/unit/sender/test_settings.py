import re
from pathlib import Path

import pytest
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_sender.settings import SenderSettings

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "network.md"
PARTS = {
    "scheduler",
    "catalog",
    "listen",
    "advertise",
    "token",
    "token_file",
    "credentials",
    "chunk_store",
    "cache_dir",
    "cache_bytes",
}
"""Of senders on hosts of their own: in docs/guides/parts-apart.md."""


def test_the_guide_names_every_setting_of_the_network() -> None:
    rows = [line.split("|")[1] for line in GUIDE.read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == SenderSettings.model_fields.keys() - PARTS - {"site", "log_format"}


def test_the_geometry_is_an_operators_to_choose_within_its_limits(tmp_path: Path) -> None:
    file = tmp_path / "fleetcast.toml"
    file.write_text("[sender]\nsymbol_bytes = 1024\ncodeword_symbols = 500\nwindow_codewords = 16\n")
    settings = SenderSettings.load(config=file)
    assert (settings.symbol_bytes, settings.codeword_symbols, settings.window_codewords) == (1024, 500, 16)
    file.write_text("[sender]\ncodeword_symbols = 5000\n")
    with pytest.raises(InvalidArgumentError, match="codeword_symbols"):
        SenderSettings.load(config=file)
