//! Ends erasures that an earlier process was killed in, and then retrains models when their
//! schedules have run out, for as long as the process serves.

use std::time::Duration;

use sql::Engine;
use tokio_util::sync::CancellationToken;

/// How often models are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks for models that are due, again and again; a training that runs when `stop` is cancelled
/// ends without a new version.
pub async fn run(engine: &Engine, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let look = async {
        tell_erasures(sql::resume_erasures(engine).await);
        loop {
            ticks.tick().await;
            tell(sql::retrain_due(engine, engine.catalog().now_ms()).await);
        }
    };
    tokio::select! {
        () = look => {}
        () = stop.cancelled() => {}
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
