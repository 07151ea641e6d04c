from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from fleetcast_kit.errors import InvalidArgumentError, UnauthenticatedError
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.enrolment_token import EnrolmentToken
from fleetcast_kit.identity.peer import Identity, Role, current_identity, identity_in
from fleetcast_kit.identity.trust import TrustBundle
from hypothesis import given
from hypothesis import strategies as st

AUTHORITY = CertificateAuthority.create()
NOW = certificates.now()


def root(token: EnrolmentToken) -> x509.Certificate:
    return token.root(not_before=NOW - timedelta(1), not_after=NOW + timedelta(1))


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.TOKEN_HOLDER}))
def test_a_certificate_of_the_authority_proves_its_identity(role: Role) -> None:
    credentials = AUTHORITY.issue_credentials(Identity.of(role, "ab12"))
    peer = TrustBundle(AUTHORITY.certificate).identify(credentials.certificate_pem)
    assert peer is not None
    assert peer.identity == Identity.of(role, "ab12") == credentials.identity
    assert Identity.parse(peer.identity.name) == peer.identity


def test_the_role_of_token_holders_cannot_be_issued() -> None:
    credentials = AUTHORITY.issue_credentials(Identity.of(Role.TOKEN_HOLDER, "ab12"))
    assert TrustBundle(AUTHORITY.certificate).identify(credentials.certificate_pem) is None


def test_another_authority_of_the_same_name_proves_nothing() -> None:
    key = certificates.generate_key()
    name = AUTHORITY.certificate.subject.rfc4514_string().removeprefix("CN=")
    impostor = CertificateAuthority(
        key, certificates.self_signed(key, name, not_before=NOW - timedelta(1), not_after=NOW + timedelta(1))
    )
    forged = impostor.issue_credentials(Identity.of(Role.ADMINISTRATOR, "local"))
    assert TrustBundle(AUTHORITY.certificate).identify(forged.certificate_pem) is None


def test_the_holder_of_a_token_is_that_and_nothing_else() -> None:
    token, unknown = EnrolmentToken.create(AUTHORITY.fingerprint), EnrolmentToken.create(AUTHORITY.fingerprint)
    key = certificates.generate_key()
    bundle = TrustBundle(AUTHORITY.certificate)
    leaf = certificates.certificate_pem(token.leaf(key.public_key()))
    assert bundle.identify(leaf) is None
    bundle.set_token_roots([root(token)])
    peer = bundle.identify(leaf)
    assert peer is not None
    assert peer.identity == Identity(Role.TOKEN_HOLDER, f"enrolmentTokens/{token.id}")
    assert bundle.identify(certificates.certificate_pem(unknown.leaf(key.public_key()))) is None
    bundle.set_token_roots([])
    assert bundle.identify(leaf) is None


def test_a_token_cannot_pass_for_another_token() -> None:
    mine, other = EnrolmentToken.create(AUTHORITY.fingerprint), EnrolmentToken.create(AUTHORITY.fingerprint)
    bundle = TrustBundle(AUTHORITY.certificate)
    bundle.set_token_roots([root(mine), root(other)])
    forged = certificates.leaf(
        certificates.generate_key().public_key(),
        "forged",
        issuer_key=mine._key(),
        issuer_common_name=f"enrolment-token:{other.id}",
        not_before=NOW - timedelta(1),
        not_after=NOW + timedelta(1),
    )
    assert bundle.identify(certificates.certificate_pem(forged)) is None


@given(st.binary())
def test_no_bytes_raise_anything(content: bytes) -> None:
    bundle = TrustBundle(AUTHORITY.certificate)
    assert bundle.identify(content) is None
    assert bundle.identify(b"-----BEGIN CERTIFICATE-----\n" + content + b"\n-----END CERTIFICATE-----\n") is None


def test_two_identities_in_one_certificate_are_none() -> None:
    key = certificates.generate_key()
    uris = [x509.UniformResourceIdentifier(f"fleetcast:machines/{name}") for name in ("a", "b")]
    certificate = (
        x509.CertificateBuilder(
            AUTHORITY.certificate.subject, AUTHORITY.certificate.subject, key.public_key(), 7, NOW, NOW + timedelta(1)
        )
        .add_extension(x509.SubjectAlternativeName(uris), critical=False)
        .sign(AUTHORITY._key, AUTHORITY.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
    )
    assert identity_in(certificate) is None


@pytest.mark.parametrize("name", ["", "machines", "machines/", "machines/a/b", "users/a", "/a"])
def test_what_is_no_name_of_an_identity_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of an identity"):
        Identity.parse(name)


def test_outside_a_call_nobody_calls() -> None:
    with pytest.raises(UnauthenticatedError, match="no call is being handled"):
        current_identity()


def test_only_bearers_with_names_may_serve() -> None:
    for names, allowed in [((), False), (("sender.lan", "10.0.0.1", "2001:db8::1"), True)]:
        issued = AUTHORITY.issue_credentials(Identity.of(Role.SENDER, "x"), names=names).certificate
        usages = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert (x509.oid.ExtendedKeyUsageOID.SERVER_AUTH in usages) is allowed
        assert certificates.names_in(issued) == tuple(sorted(names))
        assert issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_international_names_are_encoded_and_wild_ones_refused() -> None:
    issued = AUTHORITY.issue_credentials(Identity.of(Role.SENDER, "x"), names=["müller.lan", "UPPER.lan"])
    assert certificates.names_in(issued.certificate) == ("upper.lan", "xn--mller-kva.lan")
    for name in ("*", "*.lan", "", "a..b", "a b", "-a", "a/b", "a" * 254):
        with pytest.raises(InvalidArgumentError, match="neither a host name nor an address"):
            AUTHORITY.issue_credentials(Identity.of(Role.SENDER, "x"), names=[name])


def test_a_certificate_never_outlives_the_authority() -> None:
    issued = AUTHORITY.issue_credentials(Identity.of(Role.MACHINE, "x"), lifetime=timedelta(days=100_000))
    assert issued.certificate.not_valid_after_utc == AUTHORITY.certificate.not_valid_after_utc


def test_the_authority_derives_the_same_secret_for_the_same_purpose_only() -> None:
    assert AUTHORITY.derive_secret("a", 16) == AUTHORITY.derive_secret("a", 16)
    assert AUTHORITY.derive_secret("a", 16) != AUTHORITY.derive_secret("b", 16)
    assert AUTHORITY.derive_secret("a", 16) != CertificateAuthority.create().derive_secret("a", 16)


@given(st.binary(max_size=200))
def test_no_bytes_pass_for_a_public_key_or_raise_another_error(content: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        certificates.load_public_key(content, field="public_key")


def test_keys_of_other_kinds_are_not_certified() -> None:
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    with pytest.raises(InvalidArgumentError, match="not on the curve P-256"):
        certificates.load_public_key(certificates.public_key_der(other))
