//! Ends erasures that an earlier process was killed in, and then retrains models when their
//! schedules have run out, and removes rows whose retention is over, for as long as the process
//! serves.

use std::time::Duration;

use sql::Engine;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How often models and tables are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks for models and tables that are due, again and again; a training that runs when `stop` is
/// cancelled ends without a new version, and a table that is rewritten stays as it was. Retention
/// is applied to each table every `retain_every`; without it, not at all.
pub async fn run(engine: &Engine, retain_every: Option<Duration>, stop: CancellationToken) {
    let train = async {
        tell_erasures(sql::resume_erasures(engine).await);
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            tell(sql::retrain_due(engine, engine.catalog().now_ms()).await);
        }
    };
    let retain = async {
        let Some(every) = retain_every else { return std::future::pending::<()>().await };
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            tell_retained(sql::retain_due(engine, every).await);
        }
    };
    tokio::select! {
        () = train => {}
        () = retain => {}
        () = stop.cancelled() => {}
    }
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn tell_retained(done: sql::Result<Vec<sql::Retained>>) {
    match done {
        Err(error) => tracing::warn!(code = error.code(), "retention: {error}"),
        Ok(done) => {
            for sql::Retained { table, outcome } in done {
                match outcome {
                    Ok(message) => tracing::info!(table, "{message}"),
                    Err(error) => {
                        tracing::warn!(
                            table,
                            code = error.code(),
                            "retention not applied: {error}"
                        );
                    }
                }
            }
        }
    }
}

fn tell_erasures(ended: sql::Result<Vec<(String, sql::Result<String>)>>) {
    match ended {
        Err(error) => {
            tracing::warn!(code = error.code(), "interrupted erasures: {}", error.for_log());
        }
        Ok(ended) => {
            for (id, outcome) in ended {
                match outcome {
                    Ok(message) => tracing::info!(id, "erasure ended: {message}"),
                    Err(error) => {
                        let why = error.for_log();
                        tracing::warn!(id, code = error.code(), "erasure not ended: {why}");
                    }
                }
            }
        }
    }
}

fn tell(done: sql::Result<Vec<sql::Retrained>>) {
    match done {
        Err(error) => {
            tracing::warn!(code = error.code(), "scheduled trainings: {}", error.for_log());
        }
        Ok(done) => {
            for sql::Retrained { model, outcome } in done {
                match outcome {
                    Ok(message) => tracing::info!(model, "retrained by schedule: {message}"),
                    Err(error) => {
                        let why = error.for_log();
                        tracing::warn!(model, code = error.code(), "retraining failed: {why}");
                    }
                }
            }
        }
    }
}
