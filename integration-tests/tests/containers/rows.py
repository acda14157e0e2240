"""Prints as JSON the number of rows in each table of the lake, read from its Parquet files through the S3 API.

rows.py s3://bucket       (AWS_… from the environment)
"""

import json
import sys

import deltalake

OPTIONS = {"AWS_ALLOW_HTTP": "true"}
TABLES = ("streaming_raw", "gold_aggregates")
print(json.dumps({name: deltalake.DeltaTable(f"{sys.argv[1]}/{name}", storage_options=OPTIONS).to_pyarrow_table().num_rows for name in TABLES}))
