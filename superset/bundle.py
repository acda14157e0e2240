"""The dashboard's YAML files as what Superset imports, with the address of PostgreSQL filled in from CANDLEFLIGHT_POSTGRES.

bundle.py FILE.zip    writes it for another Superset: Dashboards, Import dashboards
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
    """Returns text by path; `kind` is Superset's word for what the bundle is: Dashboard, or assets, which overwrites everything."""
    files = {path.relative_to(ASSETS).as_posix(): path.read_text() for path in sorted(ASSETS.rglob("*.yaml"))}
    change(files, "metadata.yaml", type=kind)
    change(files, DATABASE, sqlalchemy_uri=superset_url(postgres))
    return files


def change(files, path, **values):
    files[path] = yaml.safe_dump({**yaml.safe_load(files[path]), **values}, sort_keys=False)


def superset_url(postgres):
    url = sqlalchemy_url(postgres)
    # SQLAlchemy reads %25 as % and writes it as it is; Superset writes and reads the address once more before it uses it.
    password = url.password and url.password.replace("%", "%2525")
    return url.set(password=password).render_as_string(hide_password=False)


def sqlalchemy_url(postgres):
    scheme, _, rest = postgres.partition("://")
    if scheme not in ("postgres", "postgresql"):
        sys.exit(f"CANDLEFLIGHT_POSTGRES begins with {scheme}, not with postgres://")
    return make_url(f"postgresql+psycopg2://{rest}")


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in contents(os.environ["CANDLEFLIGHT_POSTGRES"], "Dashboard").items():
            archive.writestr(f"candleflight/{name}", text)
