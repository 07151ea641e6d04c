from __future__ import annotations

from pathlib import Path

import pytest
from fleetcast_cli.shell.connection import Connection
from fleetcast_kit.errors import UnauthenticatedError


def test_a_damaged_credential_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("damaged")
    with pytest.raises(UnauthenticatedError, match=r"damaged.*; copy the server's DATA_DIR/administrator there again"):
        Connection("localhost:1", tmp_path).resolve()
