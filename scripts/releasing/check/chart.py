"""The package of the chart lints, and renders with each of its values files from a registry."""

import re

from .. import plan
from ..archive import unpack
from ..project import CHART, NAME, chart_version, run, version


def check(release):
    package = release.path(plan.chart())
    chart = unpack(package, release.temporary / "chart") / NAME
    tracked = run("git", "ls-files", cwd=CHART).split()
    packaged = {str(path.relative_to(chart)) for path in chart.rglob("*") if path.is_file()}
    assert packaged == set(tracked), f"the package differs from the commit in {packaged ^ set(tracked)}"
    registry = f"oci://{release.registry().address}/charts"
    run("helm", "push", package, registry, "--plain-http", quiet=True)
    reference = [f"{registry}/{NAME}", "--version", chart_version(), "--plain-http"]
    run("helm", "pull", *reference, "--destination", release.temporary, quiet=True)
    assert (release.temporary / package.name).read_bytes() == package.read_bytes(), "the registry has changed it"
    profiles = sorted(path.name for path in chart.glob("values-*.yaml"))
    for profile in [None, *profiles]:
        values = ["--values", chart / profile] if profile else []
        run("helm", "lint", "--strict", chart, *values)
        rendered = run("helm", "template", "release", *reference, *values, quiet=True)
        run("helm", "install", "release", *reference, *values, "--dry-run=client", quiet=True)
        images = set(re.findall(rf"image: \"?\S*/{NAME}:(\S+?)\"?$", rendered, re.MULTILINE))
        assert images == {version()}, f"the pods have images of {images or 'no version'}"
    yield plan.chart(), (f"pushed to a registry and installed from it (dry run); lints and renders with the default "
                         f"values{''.join(f', {profile}' for profile in profiles)}; its pods have the image {version()}")
