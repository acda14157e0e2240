"""Configuration of Superset. superset/start sets the environment."""

import os

from flask import request
from flask.sessions import SecureCookieSessionInterface
from superset.config import TALISMAN_CONFIG  # superset.config is only partly loaded at this point, but already has this name.

SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["SUPERSET_DATABASE_URL"]

# With this policy, browsers load nothing from other sites, including Superset's tracking pixel.
TALISMAN_CONFIG["content_security_policy"]["img-src"] = ["'self'", "blob:", "data:"]


class Sessions(SecureCookieSessionInterface):
    """Sets no cookie for the background requests of the log-in page. A cookie in an answer that arrives after the log-in would undo it."""

    def should_set_cookie(self, app, session):
        is_navigation = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
        return super().should_set_cookie(app, session) and (is_navigation or "_user_id" in session)


def FLASK_APP_MUTATOR(app):
    app.session_interface = Sessions()
