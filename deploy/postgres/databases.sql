-- Run by PostgreSQL's image, once, on a new volume. crypto_db, the pipeline's own, is already there: POSTGRES_DB.
CREATE DATABASE superset;
