"""Options of a Flight client as arguments: KEY=VALUE, where @FILE as VALUE stands for what the file holds."""

import pathlib


def options(arguments):
    pairs = (argument.split("=", 1) for argument in arguments)
    return {key: pathlib.Path(value[1:]).read_text() if value.startswith("@") else value for key, value in pairs}
