"""Certificate authorities, and the certificates that they issue."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Issued:
    """A certificate and its key, in PEM."""

    def __init__(self, certificate, key):
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)
        self.key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class Authority:
    def __init__(self, name):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._name, self._key.public_key(), 4000)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = Issued(builder.sign(self._key, hashes.SHA256()), self._key).certificate

    def issue(self, dns=None, uri=None, subject=(), until=4000):
        """Issues a certificate for servers and clients, valid until this year begins. The subject is a list of pairs."""
        key = ec.generate_private_key(ec.SECP256R1())
        oids = {"O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME}
        subject = x509.Name([x509.NameAttribute(oids[name], value) for name, value in subject])
        builder = _builder(subject, self._name, key.public_key(), until)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        names = [x509.DNSName(dns)] if dns else []
        names += [x509.UniformResourceIdentifier(uri)] if uri else []
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not list(subject))
        return Issued(builder.sign(self._key, hashes.SHA256()), key)


def _builder(subject, issuer, public_key, until):
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(1990, 1, 1))
        .not_valid_after(datetime.datetime(until, 1, 1))
    )
