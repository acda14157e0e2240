"""Options of clients. Those of an object store come from the environment, those of a Flight client from arguments."""

import os
import pathlib


def s3_options():
    """Returns the storage options of delta-rs for the store in the environment variables."""
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    region = os.environ.get("AWS_REGION", "us-east-1")
    return {name: os.environ[name] for name in names} | {"AWS_REGION": region, "AWS_ALLOW_HTTP": "true"}


def options(arguments):
    """Reads KEY=VALUE, where @FILE as VALUE stands for the contents of the file."""
    pairs = (argument.split("=", 1) for argument in arguments)
    return {key: pathlib.Path(value[1:]).read_text() if value.startswith("@") else value for key, value in pairs}
