"""Updates Superset's metadata database to this version of Superset and of the dashboard, if necessary, and then becomes the server.

prepare.py COMMAND…    superset/start runs it and documents its settings, which are in the environment
"""

import contextlib
import hashlib
import hmac
import importlib.metadata
import ipaddress
import os
import signal
import sys
import time

import psycopg2
import sqlalchemy
import sqlalchemy_utils
from bundle import contents, sqlalchemy_url

WAIT_SECONDS_MAX = 60
# Another start may be preparing the same database. It holds this lock, "superset" in ASCII, and the wait is long enough for it to finish.
LOCK = 0x7375706572736574
LOCK_WAIT = "5min"
# Default password of the admin. It is published, so it must not give access to other machines.
PUBLISHED_PASSWORD = "admin"
# Table that Candleflight creates in its metadata database before all others.
MARKER = "candleflight_dashboard"


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # The first process of a container has no default handler for SIGTERM.
    refuse_published_password()
    metadata = sqlalchemy.engine.make_url(os.environ["SUPERSET_DATABASE_URL"])
    postgres = os.environ["CANDLEFLIGHT_POSTGRES"]
    await_server(metadata, lambda: create_if_missing(metadata))
    await_server(sqlalchemy_url(postgres), lambda: connect(sqlalchemy_url(postgres)).close())

    files = contents(postgres, "assets")
    password = os.environ["SUPERSET_ADMIN_PASSWORD"]
    wanted = fingerprint(importlib.metadata.version("apache-superset"), sorted(files.items())), fingerprint(password)
    with contextlib.closing(connect(metadata)) as database, database.cursor() as cursor:
        database.autocommit = True
        cursor.execute(f"SET lock_timeout = '{LOCK_WAIT}'; SELECT pg_advisory_lock(%s)", (LOCK,))
        refuse_foreign(cursor, metadata)
        cursor.execute(f"SET client_min_messages = warning; CREATE TABLE IF NOT EXISTS {MARKER} (fingerprint text NOT NULL)")
        cursor.execute(f"ALTER TABLE {MARKER} ADD COLUMN IF NOT EXISTS password text")
        cursor.execute(f"SELECT fingerprint, password FROM {MARKER}")
        done = cursor.fetchone() or (None, None)
        if done == wanted:
            say("the dashboard is up to date")
            return
        say("preparing Superset and the dashboard (half a minute or two)")
        # A password that was changed in Superset stays until another one is set here.
        is_set = done[1] != wanted[1] and not (done[1] is None and password == PUBLISHED_PASSWORD)
        prepare(files, password if is_set else None)
        cursor.execute(f"BEGIN; DELETE FROM {MARKER}; INSERT INTO {MARKER} VALUES (%s, %s); COMMIT", wanted)
    say("prepared")


def say(text):
    print(f"superset: {text}", file=sys.stderr, flush=True)


def refuse_published_password():
    address = os.environ.get("SUPERSET_BIND_ADDRESS") or os.environ["SUPERSET_LISTEN"].rpartition(":")[0]
    if os.environ["SUPERSET_ADMIN_PASSWORD"] == PUBLISHED_PASSWORD and not is_loopback(address.strip("[]")):
        sys.exit(
            f"superset: {address} can be reached from outside, but the admin's password is the published one, {PUBLISHED_PASSWORD}: "
            "set SUPERSET_ADMIN_PASSWORD (SUPERSET_PASSWORD in deploy/.env), or listen on 127.0.0.1"
        )


def is_loopback(address):
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def refuse_foreign(cursor, url):
    """Exits if the database has tables that are not Candleflight's. The database of another Superset would be migrated, which cannot be undone."""
    cursor.execute(
        "SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'f') "
        "AND nspname <> 'information_schema' AND nspname !~ '^pg_' ORDER BY relname"
    )
    tables = [name for (name,) in cursor.fetchall()]
    if tables and MARKER not in tables:
        sys.exit(
            f"superset: the database {url.database} at {url.host} has tables that are not Candleflight's ({', '.join(tables[:3])}, …); nothing "
            "was changed: rename that database, or set another one in SUPERSET_DATABASE_URL"
        )


def await_server(url, attempt):
    """Retries `attempt` for a minute, since the server may start at the same time."""
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


def fingerprint(*what):
    """Returns a hash of the values. It is keyed, since they contain a password."""
    return hmac.new(os.environ["SUPERSET_SECRET_KEY"].encode(), repr(what).encode(), hashlib.sha256).hexdigest()


def prepare(files, password):
    """Upgrades the database, creates the admin, and imports the dashboard. If `password` is set, it becomes the admin's.

    One process does the work of `superset db upgrade`, `fab create-admin`, `init` and the import, since each of these loads Superset for ten
    seconds.
    """
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        import flask_migrate
        from superset import appbuilder, db, security_manager
        from superset.commands.importers.v1.assets import ImportAssetsCommand
        from superset.utils.core import override_user

        flask_migrate.upgrade()
        # This password was encrypted with a key that may have changed since. The import below replaces it.
        db.session.execute("UPDATE dbs SET password = NULL WHERE database_name = 'Candleflight'")
        db.session.commit()
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        name = os.environ["SUPERSET_ADMIN_USER"]
        admin = security_manager.find_user(name)
        if admin and password:
            security_manager.reset_password(admin.id, password)
        admin = admin or security_manager.add_user(
            name, "Candleflight", "Admin", f"{name}@localhost", security_manager.find_role("Admin"), os.environ["SUPERSET_ADMIN_PASSWORD"]
        )
        if not admin:
            sys.exit(f"superset: cannot create user {name}")
        with override_user(admin):
            ImportAssetsCommand(files).run()


main()
os.execvp(sys.argv[1], sys.argv[1:])
