import base64
import string
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.enrolment_token import EnrolmentToken, token_id_of
from hypothesis import given
from hypothesis import strategies as st

from tests.support.refusals import refusal_of

TOKENS = st.builds(EnrolmentToken, st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@given(TOKENS)
def test_unpacking_gives_what_was_packed(token: EnrolmentToken) -> None:
    text = token.pack()
    assert len(text) == 85
    assert EnrolmentToken.unpack(text) == token


@given(TOKENS)
def test_case_spaces_and_lookalikes_do_not_matter(token: EnrolmentToken) -> None:
    text = token.pack()
    typed = f"  {text[:40].upper()} {text[40:]}\n"
    prefix, rest = typed.strip()[:5], typed.strip()[5:]
    assert EnrolmentToken.unpack(prefix + rest.replace("o", "0").replace("L", "1").replace("b", "8")) == token


@given(TOKENS, st.integers(5, 84), st.sampled_from(string.ascii_lowercase + "234567"))
def test_one_wrong_character_is_found(token: EnrolmentToken, position: int, character: str) -> None:
    text = token.pack()
    typed = text[:position] + character + text[position + 1 :]
    if typed == text:
        return
    # 16 bits of checksum: one in 65,536 wrong texts would pass, and its fingerprint would then fit no server.
    refusal = refusal_of(lambda: EnrolmentToken.unpack(typed))
    if refusal is None:
        assert EnrolmentToken.unpack(typed) != token
    else:
        assert refusal.reason == "TOKEN_MISTYPED"


@given(st.text())
def test_no_text_raises_anything_but_its_own_error(text: str) -> None:
    for candidate in (text, "fct1-" + text, "fct1-" + text[:80].ljust(80, "a")):
        with pytest.raises(InvalidArgumentError):
            EnrolmentToken.unpack(candidate)


def test_an_error_never_shows_the_token() -> None:
    token = EnrolmentToken.create(bytes(32))
    text = token.pack()
    with pytest.raises(InvalidArgumentError) as caught:
        EnrolmentToken.unpack(text[:-4])
    assert text[5:20] not in caught.value.message
    assert base64.b32encode(token.secret).decode().lower()[:20] not in repr(token)


def test_the_text_of_a_known_token_never_changes() -> None:
    token = EnrolmentToken(bytes(range(16)), bytes(range(100, 132)))
    assert token.pack() == ("fct1-aaaqeayeaudaocajbifqydiob5sgkzthnbuwu23mnvxg64drojzxi5lwo54hs6t3pr6x474aqgbigunv")
    assert token.id == "xmszryyh3zac4zl6"


def test_the_root_and_the_leaf_of_a_token_fit_each_other_and_no_other() -> None:
    key = certificates.generate_key()
    one, other = EnrolmentToken.create(bytes(32)), EnrolmentToken.create(bytes(32))
    root = one.root(not_before=NOW, not_after=NOW + timedelta(days=1))
    leaf = one.leaf(key.public_key())
    assert certificates.is_issued_by(leaf, root)
    assert not certificates.is_issued_by(other.leaf(key.public_key()), root)
    assert not certificates.is_issued_by(leaf, other.root(not_before=NOW, not_after=NOW + timedelta(days=1)))
    assert token_id_of(root.subject) == token_id_of(leaf.issuer) == one.id
    assert token_id_of(leaf.subject) is None


@given(TOKENS)
def test_a_secret_always_gives_the_same_key(token: EnrolmentToken) -> None:
    def public(found: EnrolmentToken) -> bytes:
        root = found.root(not_before=NOW, not_after=NOW + timedelta(days=1))
        return root.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    assert public(token) == public(EnrolmentToken.unpack(token.pack()))
