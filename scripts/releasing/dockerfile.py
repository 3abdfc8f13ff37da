"""Reads the Dockerfile, so that the image of a release has no second description."""

import json
import re
import shlex

# BuildKit sets it in every image.
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NANOSECONDS = 1_000_000_000


def instructions(text):
    """Returns each instruction with its arguments, without comments and line breaks."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = [line.strip() for line in lines.replace("\\\n", " ").splitlines()]
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in joined if line)]


def without_build(text, sources, arch):
    """Returns the last stage for a context in which everything is built already.

    `sources` has the path in the context for each path that the stage copies from the build. In it, `arch` stands
    for the architecture.
    """
    stage = text[text.rindex("\nFROM scratch\n") + 1:]
    stage = stage.replace("FROM scratch\n", f"FROM scratch\nARG {arch}\n", 1)

    def copied(match):
        if match[2] not in sources:
            raise ValueError(f"the Dockerfile copies {match[2]}, which is unknown to scripts/release")
        return f"COPY {match[1] or ''}{sources[match[2]]} "

    return "# syntax=docker/dockerfile:1\n" + re.sub(r"(?m)^COPY --from=build (--chown=\S+ )?(\S+) ", copied, stage)


def copies(text):
    """Yields the source, the destination and the owner of each COPY."""
    for name, rest in instructions(text):
        if name == "COPY":
            words = shlex.split(rest)
            options = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
            source, destination = (word for word in words if not word.startswith("--"))
            yield source, destination, int(options.get("chown", "0:0").split(":")[0])


def config(text):
    """Returns the configuration of the image, as BuildKit writes it for one stage without a build."""
    result = {"Env": [DEFAULT_PATH]}
    for name, rest in instructions(text):
        if name == "USER":
            result["User"] = rest
        elif name == "WORKDIR":
            result["WorkingDir"] = rest
        elif name == "EXPOSE":
            result["ExposedPorts"] = {f"{port}/tcp": {} for port in rest.split()}
        elif name in ("ENTRYPOINT", "CMD"):
            result[name.capitalize()] = json.loads(rest)
        elif name == "LABEL":
            result["Labels"] = dict(word.partition("=")[::2] for word in shlex.split(rest))
        elif name == "HEALTHCHECK":
            result["Healthcheck"] = healthcheck(rest)
        elif name not in ("FROM", "ARG", "COPY"):
            raise ValueError(f"scripts/release does not support {name} in the last stage of the Dockerfile")
    return result


def healthcheck(rest):
    options, command = re.fullmatch(r"((?:--\S+ )*)CMD (.*)", rest).groups()
    seconds = {name: int(value) * NANOSECONDS for name, value in re.findall(r"--(\S+)=(\d+)s", options)}
    names = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}
    return {"Test": ["CMD", *json.loads(command)]} | {names[name]: value for name, value in seconds.items()}
