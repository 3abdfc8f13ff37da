"""The chart under test, the chart of the last version, and their values."""

import copy
import subprocess
from pathlib import Path

from test_chart import CHART, PROFILES, VALUES  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
# The last commit whose chart has version 0.1.0.
PREVIOUS_COMMIT = "c76dc26"
# Arguments and values of helm.
CASES = {name: ([], copy.deepcopy(values)) for name, values in VALUES.items()}

POSTGRES = {"replicaCount": 3, "journal": {"engine": "postgres", "url": "postgresql://gateway@db/gateway"}}
# Values of the last chart, and the values that an operator replaces them by.
UPGRADES = {
    "default": ({}, {}),
    "sandbox": ({"sandbox": {"enabled": True}}, {"sandbox": {"enabled": True}}),
    "postgres-3": (POSTGRES, POSTGRES),
    "laptop": ({"sandbox": {"enabled": True}}, PROFILES["laptop"]),
    "one-node": ({"persistence": {"size": "50Gi"}}, PROFILES["one-node"]),
    "high-availability": ({"replicaCount": 3, "journal": {"engine": "postgres"}}, PROFILES["high-availability"]),
    # The API server writes this size as 1Ti.
    "canonical size": ({"persistence": {"size": "1024Gi"}}, {"persistence": {"size": "1024Gi"}}),
}


def previous_chart(directory):
    """Writes the last version's chart into a directory. Returns its path."""
    archive = subprocess.run(
        ["git", "archive", PREVIOUS_COMMIT, "helm/thingspace-gateway"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "x", "-C", directory], input=archive, check=True)
    return directory / "helm" / "thingspace-gateway"
