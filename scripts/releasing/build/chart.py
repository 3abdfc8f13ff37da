"""Makes the package of the chart."""

import tempfile
from pathlib import Path

from .. import plan
from ..archive import repack
from ..project import CHART, epoch, run


def make(directory):
    with tempfile.TemporaryDirectory() as temporary:
        run("helm", "package", CHART, "--destination", temporary)
        # helm stores the time of the build.
        repack(Path(temporary, Path(plan.chart()).name), directory / plan.chart(), epoch())
