"""From history to the model that serves: scaler → trained_model, one partition per week, and the champion pointer."""

from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from pydantic import Field

from crypto_ml.defs.assets.uploads import market_history
from crypto_ml.defs.failures import explained
from crypto_ml.defs.machine import taken
from crypto_ml.defs.partitions import WEEKS, week_end, week_of
from crypto_ml.defs.presentation import check_result, days, link, loss_curve, mlflow_metadata, opens, picture, records
from crypto_ml.defs.resources import Platform, champion_metadata
from crypto_ml.errors import CryptoMLError, Refused
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import bundle_prefix
from crypto_ml.times import read_time
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from crypto_ml.forecasting.comparison import Measured
    from crypto_ml.forecasting.evaluation import Errors
    from crypto_ml.forecasting.pooled_scaler import PooledScaler
    from crypto_ml.forecasting.scaling import SeriesStatistics
    from crypto_ml.forecasting.trained import Trained
    from crypto_ml.ledger.registry import Champion

WAYS: Final = {"network": "network", "last_close": "last close", "last_open": "last open"}


class Knowledge(dg.Config):
    """What a training set may know."""

    known_by: str = Field(
        default="",
        description="Only rows that were known at this time (ISO 8601, UTC), such as 2018-03-25T12:00; empty: all that "
        "is known now.",
    )


def known_by(config: Knowledge) -> datetime:
    """The time that a run's config names. Raises Refused where it cannot be read."""
    if not config.known_by:
        return datetime.now(UTC)
    return read_time(config.known_by)


@dg.asset(
    deps=[dg.AssetDep(market_history, partition_mapping=dg.AllPartitionMapping())],
    partitions_def=WEEKS,
    kinds={"scikitlearn"},
    code_version=code_version("crypto_ml.stages.scaler"),
    group_name="models",
    owners=["team:ml"],
)
def scaler(context: dg.AssetExecutionContext, platform: Platform, config: Knowledge) -> dg.MaterializeResult:
    """A week's training set and the scaler fitted on its training rows: what models are trained on."""
    from crypto_ml.engine.mapping import Engine
    from crypto_ml.stages.scaler import prepare

    with explained():
        week = week_of(context)
        store, history = platform.deployment.store, platform.deployment.history
        prepared = prepare(
            week,
            week_end(week),
            history,
            store,
            known_by=known_by(config),
            code=code_version("crypto_ml.stages.scaler"),
            target=platform.deployment.settings.target,
            engine=Engine.for_rows(platform.deployment, history.count()),
        )
    manifest = prepared.manifest
    rows, split = manifest["rows"], manifest["split"]
    context.log.info(
        "week %s: %s rows of %s series known by %s, before %s; validation from %s, holdout from %s",
        week,
        f"{sum(rows.values()):,}",
        f"{manifest['symbols']:,}",
        manifest["known_by"],
        manifest["as_of"],
        split["validation_from"],
        split["holdout_from"],
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(prepared.sha256),
        metadata={
            "dagster/row_count": sum(rows.values()),
            "preview": records(_scaler_rows(prepared.scaler)),
            "series": len(prepared.scaler.symbols),
            **{f"{span}_rows": rows[span] for span in ("train", "validation", "holdout")},
            **days(prepared.days),
            **{name: split[name] for name in ("validation_from", "holdout_from")},
            "known_by": manifest["known_by"],
            "uploads": len(manifest["uploads"]),
            "history_version": manifest["history_version"],
            "scaler": link(manifest["scaler"]["key"], store),
            "training_set": dg.MetadataValue.json(
                {
                    **{name: said for name, said in manifest.items() if name not in ("uploads", "scaler")},
                    "rows_sha256": manifest["rows_sha256"][:16],
                }
            ),
        },
    )


@dg.asset(
    deps=[scaler],
    partitions_def=WEEKS,
    kinds={"keras", "onnx", "tensorflow"},
    code_version=code_version("crypto_ml.stages.trained_model"),
    check_specs=[
        dg.AssetCheckSpec(
            "onnx_equals_keras",
            asset="trained_model",
            blocking=True,
            description="What serves computes what was trained, on the validation rows.",
        ),
        dg.AssetCheckSpec(
            "enough_holdout_rows",
            asset="trained_model",
            description="The holdout has rows enough for a comparison; on few of them chance decides.",
        ),
        dg.AssetCheckSpec(
            "history_reaches_week",
            asset="trained_model",
            description="The newest row that the model knows is of the week that it is named by.",
        ),
        dg.AssetCheckSpec(
            "no_worse_than_last_close",
            asset="trained_model",
            description="On the holdout what is served is no worse than the last close: it is the last close, or a "
            "test that luck seldom passes says so (of the targets gap and change: its mean error is no greater).",
        ),
    ],
    group_name="models",
    owners=["team:ml"],
)
def trained_model(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """The candidate to take of those trained on a week's training set: exported, proven and judged, as a model bundle.

    Every learner of CRYPTO_ML_LEARNERS is trained; the best that BEATS the last close, else the last close itself.
    """
    from crypto_ml.engine.mapping import Engine
    from crypto_ml.stages.experiments import told_of_training
    from crypto_ml.stages.trained_model import train_week

    with explained():
        deployment = platform.deployment
        store, history, settings = deployment.store, deployment.history, deployment.settings
        engine = Engine.for_rows(deployment, history.count())
        candidate = train_week(week_of(context), history, store, settings, datetime.now(UTC), engine=engine)
    training_set, trained = candidate.training_set, candidate.trained
    bundle, overall = trained.bundle, trained.evaluation.overall
    pictures = {
        f"picture_{name.removeprefix('pictures/').removesuffix('.png')}": picture(content, name)
        for name, content in bundle.files.items()
        if name.endswith(".png")
    }
    loss, mirrored = trained.loss, dict[str, str]()
    for one in candidate.all:
        context.log.info("model %s (%s): %s", one.bundle.version, one.learner, one.baseline.explanation)
        told = told_of_training(one.bundle, store, context.run.run_id)
        mirrored = told if one is trained else mirrored
    return dg.MaterializeResult(
        data_version=dg.DataVersion(bundle.sha256),
        metadata={
            "dagster/uri": store.uri(bundle_prefix(bundle.version)),
            "dagster/row_count": training_set.manifest["rows"]["train"],
            "loss": loss_curve(loss["loss"], loss["val_loss"]),
            **opens([trained.longest]),
            "holdout": records([_off_by(name, getattr(overall, way)) for way, name in WAYS.items()]),
            "model_version": bundle.version,
            **_served(trained),
            "candidates": records([_candidate(one, taken=one is trained) for one in candidate.all]),
            "mase": overall.network.mase,
            "mean_relative_error": overall.network.mre,
            "last_close_error": overall.last_close.mre,
            "holdout_rows": overall.rows,
            "epochs": len(loss["loss"]),
            **{name: training_set.manifest["split"][name] for name in ("validation_from", "holdout_from")},
            "as_of": training_set.manifest["as_of"],
            "training_set": training_set.sha256[:16],
            "bundle": link(bundle_prefix(bundle.version) + "bundle.json", store),
            "model_card": dg.MetadataValue.md(bundle.files["MODEL_CARD.md"].decode()),
            **mlflow_metadata(mirrored),
            **pictures,
            **taken(),
        },
        check_results=[
            check_result("onnx_equals_keras", candidate.onnx, dg.AssetCheckSeverity.ERROR),
            check_result("enough_holdout_rows", trained.holdout_size, dg.AssetCheckSeverity.WARN),
            check_result("no_worse_than_last_close", trained.baseline, dg.AssetCheckSeverity.WARN),
            check_result("history_reaches_week", candidate.recency, dg.AssetCheckSeverity.WARN),
        ],
    )


def _served(trained: "Trained") -> dict[str, Any]:
    """What a model of relative gaps serves, and how often its intervals held on the holdout."""
    metrics, word = trained.bundle.document("metrics.json"), trained.judgement
    if word is None:
        return {}
    levels = metrics["coverage"].get("by_level", {})
    return {
        "verdict": word.word,
        "excess_loss": word.mean,
        "lambda": metrics["shrinkage"]["served"],
        **{f"coverage_{100 * float(level):.0f}": one["coverage"] for level, one in levels.items()},
    }


def _candidate(trained: "Trained", *, taken: bool) -> dict[str, Any]:
    """A model that was trained for a week, as a row of a table."""
    metrics, word = trained.bundle.document("metrics.json"), trained.judgement
    shrinkage, raw = metrics.get("shrinkage", {}), metrics.get("raw", {})
    return {
        "taken": "yes" if taken else "",
        "learner": trained.learner,
        "version": trained.bundle.version,
        "verdict": word.word if word else "",
        "excess loss, %": 100 * word.mean if word else None,
        "λ of validation": shrinkage.get("validation"),
        "λ served": shrinkage.get("served"),
        "excess loss by itself, %": 100 * raw["excess_loss"] if raw else None,
    }


class Promotion(dg.Config):
    """Which model is to serve, who decided so, and why. With nothing given the pointer is read, and nothing changes."""

    version: str | None = Field(  # the launchpad leaves out what is None by default, so that nobody would see it there
        default="",
        description="The version that is to serve. `crypto-ml models` lists those there are, and so does a launch of "
        "promote_model in which nothing is decided.",
    )
    rollback: bool = Field(
        default=False,
        description="true: go back to the model that served before the champion, instead of promoting a version. Once "
        "more goes further back; what was rolled back from is not gone back to.",
    )
    by: str = Field(default="", description="Who decides. Recorded; needed for a promotion and for a rollback.")
    why: str = Field(default="", description="Why. Recorded; needed for a promotion and for a rollback.")
    override: str | None = Field(
        default="",
        description="Why the version may serve although a gate fails. Recorded, where one does; else not needed.",
    )


@dg.asset(
    deps=[trained_model],
    kinds={"s3", "json"},
    code_version="1",
    group_name="models",
    owners=["team:ml"],
)
def champion_model(context: dg.AssetExecutionContext, platform: Platform, config: Promotion) -> dg.MaterializeResult:
    """The pointer to the model that serves; its history says who promoted what, when and why."""
    from crypto_ml.stages.chained_decisions import chained_decision
    from crypto_ml.stages.experiments import told_of_decision
    from crypto_ml.stages.promotion import Decision, decide

    mirrored = {}
    with explained():
        deployment, champion = platform.deployment, platform.champion
        if config.version and config.rollback:
            raise Refused("a run either promotes a version or rolls back; give version or rollback, not both")
        if not (config.version or config.rollback) and (config.by or config.why or config.override):
            raise Refused("nothing says what was decided: give the version that is to serve, or rollback: true")
        decided_on = f"{_NOTHING_DECIDED}; {deployment.registry.told_versions()}"
        if config.version or config.rollback:
            decision = Decision(config.version or None, config.by, config.why, config.override or None)
            decision = decision.of_run(first_run(context.run))
            decided = decide(decision, deployment.registry, deployment.history, datetime.now(UTC))
            # carried out before, by a run that was executed again, it may have been followed by another since
            champion = max(champion, decided, key=lambda entry: entry.pointer)
            mirrored = told_of_decision(champion, deployment.registry)
            for said in chained_decision(f"entry {decided.pointer} of the pointer", deployment, datetime.now(UTC)):
                context.log.warning(visible(said))
            decided_on = f"{decided.version}: {decided.action} by {decided.by}, entry {decided.pointer} of the pointer"
    context.log.info(visible(decided_on))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(champion.sha256),
        metadata={
            "decided": visible(decided_on),
            **mlflow_metadata(mirrored),
            **_models(champion, platform),
            **champion_metadata(champion),
            "holdout": _holdout(champion, platform),
        },
    )


_NOTHING_DECIDED: Final = (
    "nothing was decided, and the champion is as it was: give version, by and why to promote, or rollback, by and why "
    "to go back"
)


def first_run(run: dg.DagsterRun) -> str:
    """The run that a run repeats, however often it was tried again; itself where it repeats none."""
    return run.root_run_id or run.get_root_run_id() or run.run_id


def _models(champion: "Champion", platform: Platform) -> dict[str, Any]:
    """Champion and candidates on the same rows. The decision stands by now: what is out of reach fails nothing."""
    from crypto_ml.stages.comparison import compare_models

    try:
        found = compare_models(platform.deployment.registry, platform.deployment.history)
    except CryptoMLError as error:
        return {"compared_on": f"not compared: {visible(str(error))}"}
    unmeasured = [(number, one) for number, one in enumerate(found.models, 1) if one.errors is None]
    baselines = {"last close": found.last_close, "last open": found.last_open}
    models = [
        _compared(f"{one.version} (champion)" if one.version == champion.version else one.version, one)
        for one in found.models
    ]
    no_word = {"against the last close": "", "against the champion": "", "saw rows": ""}
    return {
        "models": records([*models, *({**_off_by(name, errors), **no_word} for name, errors in baselines.items())]),
        **_verdict(champion.version, found.of(champion.version)),
        "compared_on": f"{found.measured_on}: the same for all, the champion and the newest models",
        **{f"not_compared_{number}": visible(f"{one.version}: {one.why}") for number, one in unmeasured},
    }


def _compared(name: str, measured: "Measured") -> dict[str, Any]:
    return {
        **_off_by(name, measured.errors),
        "against the last close": measured.last_close.judgement.word if measured.last_close else "–",
        "against the champion": measured.champion.judgement.word if measured.champion else "–",
        "saw rows": measured.fitted,
    }


def _verdict(version: str, measured: "Measured | None") -> dict[str, Any]:
    """The word on the champion against the last close, its numbers, which plot over time, and a picture of them."""
    from crypto_ml.extras import can_draw

    if measured is None or measured.last_close is None:
        return {}
    judgement = measured.last_close.judgement
    numbers = {f"verdict_{name}": value for name, value in judgement.numbers.items() if value is not None}
    shown = {"verdict": f"{judgement.word}: {judgement.explanation}", **numbers}
    if can_draw():
        from crypto_ml.forecasting.pictures import excess_loss

        what = f"{version} against the last close, day by day: {judgement.word}"
        shown["picture_verdict"] = picture(excess_loss(measured.last_close.loss, judgement, version), what)
    return shown


def _off_by(name: str, errors: "Errors | None") -> dict[str, Any]:
    """How far off predictions are, as a row of a table."""
    if errors is None:
        return {"predicted by": name, "off by, %": "–", "MASE": "–", "direction, %": "–"}
    direction = errors.directional_accuracy
    return {
        "predicted by": name,
        "off by, %": 100 * errors.mre,
        "MASE": errors.mase,
        "direction, %": None if direction is None else 100 * direction,
    }


def _holdout(champion: "Champion", platform: Platform) -> dg.TextMetadataValue | dg.TableMetadataValue:
    """How good the champion is on its holdout. The decision stands by now: a bundle out of reach is not its failure."""
    from crypto_ml.forecasting.evaluation import Errors

    try:
        metrics = platform.deployment.bundle(champion.version).document("metrics.json")
    except CryptoMLError as error:
        return dg.MetadataValue.text(visible(str(error)))
    overall = metrics.get("holdout", {}).get("overall", {})
    known = [field.name for field in fields(Errors)]
    errors = {name: overall[way] for way, name in WAYS.items() if way in overall}
    return records([_off_by(name, Errors(*(one.get(field) for field in known))) for name, one in errors.items()])


def _scaler_rows(scaler: "SeriesStatistics | PooledScaler") -> list[dict[str, Any]]:
    from crypto_ml.forecasting.pooled_scaler import PooledScaler

    if isinstance(scaler, PooledScaler):
        return [
            {"feature": name, "mean": scaler.mean[k], "deviation": scaler.scale[k]}
            for k, name in enumerate(scaler.columns)
        ]
    statistics = scaler
    return [
        {
            "symbol": symbol,
            "mean open": statistics.mean[k, 0],
            "deviation of open": statistics.scale[k, 0],
            "deviation of v_open": statistics.scale[k, statistics.v_open],
            "deviation of gap": statistics.gap_scale[k],
        }
        for k, symbol in enumerate(statistics.symbols[:10])
    ]
