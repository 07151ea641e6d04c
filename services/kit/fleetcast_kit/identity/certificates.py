"""The X.509 certificates of fleetcast: who signs what for how long, and with which extensions."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.addresses import is_host_name, is_ip_address

CLOCK_TOLERANCE = timedelta(days=1)
"""How far back a certificate's life starts, for hosts whose clock is behind."""


def generate_key() -> ec.EllipticCurvePrivateKey:
    """Returns a new private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def self_signed(
    key: ec.EllipticCurvePrivateKey, common_name: str, *, not_before: datetime, not_after: datetime
) -> x509.Certificate:
    """Returns a root certificate that may sign leaves only."""
    builder = _builder(
        subject=common_name,
        issuer=common_name,
        public_key=key.public_key(),
        issuer_key=key,
        not_before=not_before,
        not_after=not_after,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_key_usage(signs_certificates=True), critical=True).sign(key, hashes.SHA256())


def leaf(
    public_key: ec.EllipticCurvePublicKey,
    common_name: str,
    *,
    issuer_key: ec.EllipticCurvePrivateKey,
    issuer_common_name: str,
    not_before: datetime,
    not_after: datetime,
    uri: str = "",
    names: Iterable[str] = (),
) -> x509.Certificate:
    """Returns a certificate for `public_key`: of a client, and also of a server if it has `names` to be reached by."""
    names = list(names)
    builder = _builder(
        subject=common_name,
        issuer=issuer_common_name,
        public_key=public_key,
        issuer_key=issuer_key,
        not_before=not_before,
        not_after=not_after,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if names else [])
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)] if uri else []
    alternatives += [_general_name(name) for name in names]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Returns whether `issuer` itself signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_signed_by(signer: x509.Certificate, purpose: str, content: bytes, signature: bytes) -> bool:
    """Returns whether the owner of `signer` signed `content` for `purpose`, see `CertificateAuthority.sign`."""
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, purposed(purpose, content), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def purposed(purpose: str, content: bytes) -> bytes:
    """Returns what is signed: it begins with text, so that no signature can pass for that of a certificate (DER)."""
    return b"fleetcast " + purpose.encode() + b"\0" + content


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """Returns the names and addresses under which the bearer is reached, sorted."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    return tuple(sorted([*alternatives.get_values_for_type(x509.DNSName), *map(str, addresses)]))


def fingerprint(certificate: x509.Certificate) -> bytes:
    """Returns the SHA-256 of the certificate in DER: 32 bytes."""
    return certificate.fingerprint(hashes.SHA256())


def public_key_der(key: CertificatePublicKeyTypes) -> bytes:
    """Returns the SubjectPublicKeyInfo of `key` in DER."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_public_key(der: bytes, *, field: str = "") -> ec.EllipticCurvePublicKey:
    """Returns the P-256 key in a SubjectPublicKeyInfo.

    Raises:
        InvalidArgumentError: it is no such key; `field` is its name in the request.
    """
    try:
        key = serialization.load_der_public_key(der)
    except Exception as error:  # the library documents no closed list for hostile input
        raise InvalidArgumentError("the public key is not a SubjectPublicKeyInfo in DER", field=field) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidArgumentError("the public key is not on the curve P-256", field=field)
    return key


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Returns the certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Returns the private key in PEM (PKCS #8, not encrypted: the file's permissions protect it)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def now() -> datetime:
    """Returns the time in whole seconds, as certificates count it."""
    return datetime.now(UTC).replace(microsecond=0)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    if is_ip_address(name):
        return x509.IPAddress(ipaddress.ip_address(name))
    try:
        ascii_name = name.encode("idna").decode().lower()
    except UnicodeError:
        ascii_name = ""
    if not is_host_name(ascii_name):
        raise InvalidArgumentError(f"{name!r} is neither a host name nor an address", field="names")
    return x509.DNSName(ascii_name)


def _builder(
    *,
    subject: str,
    issuer: str,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
