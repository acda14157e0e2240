"""What Superset needs to know; superset/start sets the environment."""

import os

from superset.config import TALISMAN_CONFIG  # Half loaded while this file is read, but this is there.

SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["SUPERSET_DATABASE_URL"]

# Browsers then load nothing from other sites, Superset's counting pixel included.
TALISMAN_CONFIG["content_security_policy"]["img-src"] = ["'self'", "blob:", "data:"]
