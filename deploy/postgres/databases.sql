-- PostgreSQL's image runs this file once, on a new volume. It has already created crypto_db, the database of the pipeline (POSTGRES_DB).
CREATE DATABASE superset;
