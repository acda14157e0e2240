"""Brings Superset's metadata database to this version of Superset and of the dashboard, unless it is there, and becomes the server.

prepare.py COMMAND…    what superset/start runs; settings come from the environment, see there
"""

import contextlib
import hashlib
import hmac
import importlib.metadata
import os
import signal
import sys
import time

import psycopg2
import sqlalchemy
import sqlalchemy_utils
from bundle import contents, sqlalchemy_url

WAIT_SECONDS_MAX = 60
# Another start may be preparing the same database: the lock, "superset" in ASCII, is waited for, and long enough for that.
LOCK = 0x7375706572736574
LOCK_WAIT = "5min"


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # The first process of a container has no default for it.
    metadata = sqlalchemy.engine.make_url(os.environ["SUPERSET_DATABASE_URL"])
    postgres = os.environ["CANDLEFLIGHT_POSTGRES"]
    await_server(metadata, lambda: create_if_missing(metadata))
    await_server(sqlalchemy_url(postgres), lambda: connect(sqlalchemy_url(postgres)).close())

    files = contents(postgres, "assets")
    wanted = fingerprint(files)
    with contextlib.closing(connect(metadata)) as database, database.cursor() as cursor:
        database.autocommit = True
        cursor.execute(f"SET lock_timeout = '{LOCK_WAIT}'; SELECT pg_advisory_lock(%s)", (LOCK,))
        cursor.execute("SET client_min_messages = warning; CREATE TABLE IF NOT EXISTS candleflight_dashboard (fingerprint text NOT NULL)")
        cursor.execute("SELECT 1 FROM candleflight_dashboard WHERE fingerprint = %s", (wanted,))
        if cursor.fetchone():
            say("the dashboard is up to date")
            return
        say("preparing Superset and the dashboard (half a minute or two)")
        prepare(files)
        cursor.execute("BEGIN; DELETE FROM candleflight_dashboard; INSERT INTO candleflight_dashboard VALUES (%s); COMMIT", (wanted,))
    say("prepared")


def say(text):
    print(f"superset: {text}", file=sys.stderr, flush=True)


def await_server(url, attempt):
    """Tries for a minute: the server may be starting beside us."""
    until = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        try:
            return attempt()
        except (psycopg2.Error, sqlalchemy.exc.SQLAlchemyError) as error:
            if time.monotonic() > until:
                sys.exit(f"superset: {url!r} cannot be used after {WAIT_SECONDS_MAX} s: {error}")
            time.sleep(0.2)


def connect(url):
    arguments = url.translate_connect_args(username="user", database="dbname")
    return psycopg2.connect(**{"connect_timeout": 5, **url.query, **arguments})


def create_if_missing(url):
    if not sqlalchemy_utils.database_exists(url):
        sqlalchemy_utils.create_database(url)
        say(f"created database {url.database}")


def fingerprint(files):
    """Changes with Superset, the dashboard and the address of PostgreSQL; keyed, since that holds a password."""
    text = repr((importlib.metadata.version("apache-superset"), sorted(files.items())))
    return hmac.new(os.environ["SUPERSET_SECRET_KEY"].encode(), text.encode(), hashlib.sha256).hexdigest()


def prepare(files):
    """Does what `superset db upgrade`, `fab create-admin`, `init` and the import of assets do, in one process: each loads Superset for ten seconds."""
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        import flask_migrate
        from superset import appbuilder, db, security_manager
        from superset.commands.importers.v1.assets import ImportAssetsCommand
        from superset.utils.core import override_user

        flask_migrate.upgrade()
        # Encrypted with a key that may have changed since, and about to be replaced.
        db.session.execute("UPDATE dbs SET password = NULL WHERE database_name = 'Candleflight'")
        db.session.commit()
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        name = os.environ["SUPERSET_ADMIN_USER"]
        admin = security_manager.find_user(name) or security_manager.add_user(
            name, "Candleflight", "Admin", f"{name}@localhost", security_manager.find_role("Admin"), os.environ["SUPERSET_ADMIN_PASSWORD"]
        )
        if not admin:
            sys.exit(f"superset: cannot create user {name}")
        with override_user(admin):
            ImportAssetsCommand(files).run()


main()
os.execvp(sys.argv[1], sys.argv[1:])
