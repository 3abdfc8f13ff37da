"""Texts that the tests plant in every input, and that no gateway may write anywhere.

They are credentials, bearer tokens, private keys, and the names and addresses of customers. A test whose gateway or
collector has one of them in its outputs fails."""

import base64
import re
from pathlib import Path

# Credentials begin with `planted-`, also in base64, in the header `authorization: Basic`. Names and addresses begin with
# `Planted`. The others are the header and the claims of a bearer token, and a private key.
IN_FILES = re.compile(
    rb"planted-|Planted|" + base64.b64encode(b"planted-")[:10]
    + rb"|eyJhbGciOi|eyJpc3MiOi|PRIVATE KEY-----|MIGHAgEAMBMGByqGSM49"
)
# In a text, any JSON object in base64. Binary files contain its first bytes by chance.
IN_TEXT = re.compile(IN_FILES.pattern + rb"|eyJ")

# A planted address and a planted name.
PLACE = {
    "address": {"address_line1": "17 Plantedstreet", "city": "Plantedtown", "state": "TX", "zip": "75001"},
    "customer_name": {"first_name": "Plantedfirst", "last_name": "Plantedlast"},
}

# The data that collectors have received. The tests' fixture `no_planted_text` checks it.
found = []


def find(output, pattern=IN_TEXT):
    """Returns a line with a planted text, or None."""
    match = pattern.search(output)
    if not match:
        return None
    return output[max(0, match.start() - 200) : match.end() + 100].decode(errors="replace")


def check(what, output):
    """Fails if a text contains a planted text."""
    line = find(output)
    assert line is None, f"{what} has a planted text: {line}"


def check_files(paths, inputs=()):
    """Fails if a file at or below the paths contains a planted text, except the inputs of the gateway."""
    for path in map(Path, paths):
        for file in [path, *path.rglob("*")] if path.exists() else []:
            if file.is_file() and str(file) not in inputs:
                line = find(file.read_bytes(), IN_FILES)
                assert line is None, f"{file} has a planted text: {line}"
