"""An issuer of bearer tokens, also of tokens that must be refused. No library signs the latter."""

import base64
import hashlib
import hmac
import json
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

ISSUER, AUDIENCE = "https://issuer.test.example", "thingspace-gateway"


class Issuer:
    """An issuer with one key for ES256."""

    def __init__(self, kid="first"):
        self.kid = kid
        self._key = ec.generate_private_key(ec.SECP256R1())

    def key_set(self):
        """Returns the public key as a JSON Web Key Set."""
        point = self._key.public_key().public_numbers()
        x, y = (_encode(number.to_bytes(32, "big")) for number in (point.x, point.y))
        key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y}
        return json.dumps({"keys": [key]})

    def token(self, **claims):
        """Returns a token that is valid for an hour, with these claims. None leaves out a claim."""
        message = self._message("ES256", claims)
        signature = self._key.sign(message.encode(), ec.ECDSA(hashes.SHA256()))
        numbers = utils.decode_dss_signature(signature)
        return f"{message}.{_encode(b''.join(number.to_bytes(32, 'big') for number in numbers))}"

    def unsigned_token(self, **claims):
        return self._message("none", claims) + "."

    def confused_token(self, **claims):
        """Returns a token with an HMAC whose key is the issuer's public key, in PEM as libraries print it."""
        message = self._message("HS256", claims)
        public_key = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return f"{message}.{_encode(hmac.digest(public_key, message.encode(), hashlib.sha256))}"

    def _message(self, algorithm, changed):
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "fleet", "exp": int(time.time()) + 3600} | changed
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": algorithm, "typ": "JWT", "kid": self.kid}
        return ".".join(_encode(json.dumps(part).encode()) for part in (header, claims))


def _encode(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
