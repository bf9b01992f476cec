//! Traces: a span a statement, with its plan and execution below it, sent to an OpenTelemetry
//! collector by OTLP over gRPC.
//!
//! Spans are handed to a bounded queue and sent by a thread of their own: a collector that is slow
//! or away costs spans, never time. What is queued at the end is sent within a few seconds or lost.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use crate::config::ObserveSection;
use crate::error::{Error, Result};

/// A collector that does not answer for so long loses the spans that it was sent.
const SEND_MAX: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// The target of the spans that are exported; other crates' spans stay at home.
const TARGET: &str = "attune";

/// The running export of spans.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Starts the export, when a collector is configured. Whether it can be reached is not asked.
    ///
    /// # Errors
    /// An endpoint that is no address.
    pub fn start(section: &ObserveSection) -> Result<Option<Self>> {
        let Some(endpoint) = &section.otlp_endpoint else { return Ok(None) };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(SEND_MAX)
            .build()
            .map_err(|error| {
                Error::usage(
                    format!("[observe] otlp_endpoint {endpoint:?} cannot be used: {error}"),
                    "write http://HOST:4317",
                )
            })?;
        let resource = Resource::builder_empty().with_service_name(section.service_name.clone());
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self { provider }))
    }

    /// What takes the spans from the log.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = self.provider.tracer(TARGET);
        let spans = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false);
        spans.with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
    }

    /// Sends what is left.
    pub async fn end(self) {
        // The export's own thread does the work; waiting for it must not stop the runtime.
        let ended =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST_SPANS));
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}
