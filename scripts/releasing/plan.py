"""The artifacts of a release, by their paths below the directory of the release."""

from .project import CLIENT, NAME, TARGETS, chart_version, version

SUMS = "SHA256SUMS"
PROVENANCE = "provenance.json"
# The directory of the packages in a Maven repository.
MAVEN_GROUP = f"io/github/{NAME}"


def binary(arch):
    return f"binaries/{NAME}-{version()}-linux-{arch}.tar.gz"


def bill(arch):
    return f"sbom/{NAME}-{version()}-linux-{arch}.cdx.json"


def image():
    return f"image/{NAME}-{version()}-oci.tar"


def image_context():
    return f"image/{NAME}-{version()}-context.tar.gz"


def chart():
    return f"chart/{NAME}-{chart_version()}.tgz"


def descriptors():
    return f"api/{NAME}-{version()}.binpb"


def protos():
    return f"api/{NAME}-{version()}-protos.tar.gz"


def openapi():
    return f"api/{NAME}-{version()}-openapi.yaml"


def go_module():
    """Files that a module proxy serves."""
    return [f"clients/go/v{version()}.{kind}" for kind in ("zip", "mod", "info")]


def maven_artifact():
    """Files in the layout of a Maven repository, with the checksums that it expects."""
    stem = f"clients/java/{MAVEN_GROUP}/{CLIENT}/{version()}/{CLIENT}-{version()}"
    files = [f"{stem}{end}" for end in (".jar", ".pom", "-sources.jar", "-javadoc.jar")]
    return [f"{file}{end}" for file in files for end in ("", ".md5", ".sha1")]


def python_packages():
    stem = f"clients/python/{CLIENT.replace('-', '_')}-{version()}"
    return [f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"]


def crate():
    return f"clients/rust/{CLIENT}-{version()}.crate"


def npm_package():
    return f"clients/typescript/{CLIENT}-{version()}.tgz"


def kinds():
    """Returns the artifacts of each kind, in the order in which they are made."""
    return {
        "protos": [descriptors(), protos(), openapi()],
        "chart": [chart()],
        "clients": [*go_module(), *maven_artifact(), *python_packages(), crate(), npm_package()],
        "binaries": [binary(arch) for arch in TARGETS],
        "sbom": [bill(arch) for arch in TARGETS],
        "image": [image_context(), image()],
    }


def artifacts():
    """Returns all artifacts, without the checksums and the provenance."""
    return [path for paths in kinds().values() for path in paths]


def files():
    """Returns all files of a release."""
    return [*artifacts(), PROVENANCE, SUMS]
