"""What Superset needs to know; superset/start sets the environment."""

import os

from flask import request
from flask.sessions import SecureCookieSessionInterface
from superset.config import TALISMAN_CONFIG  # Half loaded while this file is read, but this is there.

SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["SUPERSET_DATABASE_URL"]

# Browsers then load nothing from other sites, Superset's counting pixel included.
TALISMAN_CONFIG["content_security_policy"]["img-src"] = ["'self'", "blob:", "data:"]


class Sessions(SecureCookieSessionInterface):
    """Gives no cookie to what the log-in page asks and logs by itself: in an answer that comes after the log-in's, it would undo the log-in."""

    def should_set_cookie(self, app, session):
        is_navigation = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
        return super().should_set_cookie(app, session) and (is_navigation or "_user_id" in session)


def FLASK_APP_MUTATOR(app):
    app.session_interface = Sessions()
