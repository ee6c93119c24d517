"""Tax ids and government numbers, sealed so that the database alone does not give them away.

Two keys are derived from the vetting key (HKDF, RFC 5869). One seals: AES-256-GCM, NIST SP 800-38D, with the
customer as associated data, so that a sealed number cannot be moved to another customer. The other makes the keyed
digest (HMAC-SHA256) that tells whether two customers have the same number.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import unicodedata
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ringfence.errors import BadInputError, ConfigError, ConflictError

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = b"\x01"  # of what is sealed, should it ever have to change
_MIN_DIGITS, _MAX_DIGITS = 4, 64
_HOW = "'ringfence customer vetting-key' makes one"


class VettingKey:
    """Seals, unseals and compares numbers."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigError(f"vetting.key_file: the key has {len(key)} bytes, not {KEY_BYTES}: {_HOW}")
        self._sealing = AESGCM(_derived(key, b"ringfence vetting: seal"))
        self._digesting = _derived(key, b"ringfence vetting: digest")

    @classmethod
    def read(cls, text: str | None) -> VettingKey:
        """From the text of a key file. Raises ConfigError if there is none or it is not a key."""
        if text is None:
            raise ConfigError(
                "vetting.key_file: no key: name a file here or give the systemd credential 'vetting-key'; " + _HOW
            )
        try:
            return cls(base64.b64decode(text.strip(), validate=True))
        except (binascii.Error, ValueError):
            raise ConfigError(f"vetting.key_file: this is not a key in base64: {_HOW}") from None

    def seal(self, number: str, customer: str) -> bytes:
        """The number as it is written, readable with the key for this customer only."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORMAT + nonce + self._sealing.encrypt(nonce, number.encode(), _about(customer))

    def unseal(self, sealed: bytes, customer: str) -> str:
        """What `seal` was given. Raises ConfigError if it was sealed with another key or for another customer, or
        was changed since."""
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _FORMAT or len(nonce) != _NONCE_BYTES:
                raise InvalidTag
            return self._sealing.decrypt(nonce, text, _about(customer)).decode()
        except InvalidTag:
            raise ConfigError(
                f"vetting.key_file: this key does not open the number of customer {customer!r}: "
                "it was sealed with another key, or changed"
            ) from None

    def digest(self, number: str) -> bytes:
        """The same for every way to write the same number. Raises BadInputError as `normalised` does."""
        return hmac.digest(self._digesting, normalised(number).encode(), "sha256")


def normalised(number: str) -> str:
    """Letters and digits only, in capitals: 12-3456789 and 123456789 are the same number.

    Raises BadInputError if too little or too much is left.
    """
    upper = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", number).upper())
    kept = "".join(c for c in upper if c.isalnum())
    if not _MIN_DIGITS <= len(kept) <= _MAX_DIGITS:
        raise BadInputError(f"tax_id: give {_MIN_DIGITS} to {_MAX_DIGITS} letters and digits")
    return kept


def make_key_file(path: Path) -> None:
    """Write a new random key, readable by its owner alone. Raises ConflictError if there is a file already, and
    ConfigError if it cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConflictError(
            f"{path} is there already: what was sealed with a key can be read with no other; name another file"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(descriptor)


def _derived(key: bytes, label: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=label).derive(key)


def _about(customer: str) -> bytes:
    return b"tax id of customer " + customer.encode()
