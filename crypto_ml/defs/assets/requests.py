"""served_predictions: the answers to requests, which a service gives without Dagster; what was settled is shown."""

import dagster as dg

from crypto_ml.defs.assets.models import champion_model
from crypto_ml.defs.assets.uploads import market_history
from crypto_ml.ledger.code import code_version

served_predictions = dg.AssetSpec(
    "served_predictions",
    deps=[dg.AssetDep(market_history, partition_mapping=dg.AllPartitionMapping()), champion_model],
    description="The answers to requests, given by `crypto-ml serve` and not by runs: requests_sensor shows what was "
    "asked, and which model answered. Their rows do not become part of market_history.",
    kinds={"onnx", "s3"},
    group_name="requests",
    owners=["team:data"],
    code_version=code_version("crypto_ml.stages.requests"),
)
