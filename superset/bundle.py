"""Builds the bundle that Superset imports from the dashboard's YAML files and the address of PostgreSQL in CANDLEFLIGHT_POSTGRES.

bundle.py FILE.zip    writes the bundle for another Superset: Dashboards, Import dashboards
"""

import os
import pathlib
import sys
import zipfile

import yaml
from sqlalchemy.engine import make_url

ASSETS = pathlib.Path(__file__).parent / "assets"
DATABASE = "databases/candleflight.yaml"


def contents(postgres, kind):
    """Returns the text of each file by path. `kind` is Superset's type of the bundle: Dashboard, or assets, which overwrites existing objects."""
    files = {path.relative_to(ASSETS).as_posix(): path.read_text() for path in sorted(ASSETS.rglob("*.yaml"))}
    change(files, "metadata.yaml", type=kind)
    change(files, DATABASE, sqlalchemy_uri=superset_url(postgres))
    return files


def change(files, path, **values):
    files[path] = yaml.safe_dump({**yaml.safe_load(files[path]), **values}, sort_keys=False)


def superset_url(postgres):
    url = sqlalchemy_url(postgres)
    # SQLAlchemy decodes %25 to % and does not encode % again. Superset formats and parses the address once more, so % is encoded twice.
    password = url.password and url.password.replace("%", "%2525")
    return url.set(password=password).render_as_string(hide_password=False)


def sqlalchemy_url(postgres):
    scheme, _, rest = postgres.partition("://")
    if scheme not in ("postgres", "postgresql"):
        sys.exit(f"CANDLEFLIGHT_POSTGRES must begin with postgres://, not with {scheme}")
    return make_url(f"postgresql+psycopg2://{rest}")


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in contents(os.environ["CANDLEFLIGHT_POSTGRES"], "Dashboard").items():
            archive.writestr(f"candleflight/{name}", text)
