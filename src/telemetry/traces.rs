//! Traces over OTLP (HTTP, protobuf) when `OTEL_EXPORTER_OTLP_ENDPOINT` is set, with the names of OpenTelemetry's
//! semantic conventions. One trace leads from the HTTP request through the message to the worker's SQL: its context
//! travels as W3C Trace Context in the header `traceparent`, of HTTP and of AMQP alike.

use std::{
    borrow::Cow,
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use opentelemetry::{
    Context, TraceFlags,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _, TraceState, TracerProvider as _},
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{IdGenerator as _, RandomIdGenerator, SdkTracerProvider},
};
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    Layer,
    filter::{FilterExt as _, Targets, dynamic_filter_fn},
    registry::LookupSpan,
};

/// Either of them switches traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// How long the export of the last traces may take when the process ends.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(1);
const TRACEPARENT: &str = "traceparent";

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Whether this process exports traces.
pub fn is_enabled() -> bool {
    PROVIDER.get().is_some()
}

/// The layer that turns spans into traces; `None` unless the environment names an endpoint.
pub(super) fn layer<S>() -> Option<impl Layer<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let is_set = |name: &&str| std::env::var(name).is_ok_and(|endpoint| !endpoint.is_empty());
    ENDPOINTS.iter().find(|name| is_set(name))?;

    let provider = provider()?;
    let tracer = provider.tracer("shop");
    PROVIDER.set(provider).ok()?;

    let exported_targets = Targets::new()
        .with_target("shop", LevelFilter::INFO)
        .with_target("sea_orm", LevelFilter::INFO);
    // A statement without a parent span, such as the sweeper's every second, would be a trace of its own.
    let statement_has_parent = dynamic_filter_fn(|metadata, context| {
        !metadata.target().starts_with("sea_orm") || context.lookup_current().is_some()
    });

    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false);
    Some(layer.with_filter(exported_targets.and(statement_has_parent)))
}

/// Exports in batches, to the endpoint and with the settings that the environment names.
fn provider() -> Option<SdkTracerProvider> {
    // The HTTP client of an https endpoint uses the process's default cryptography.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The log is not there yet.
    let exporter = SpanExporter::builder()
        .with_http()
        .build()
        .inspect_err(|error| eprintln!("shop: traces are not exported: {error}"))
        .ok()?;

    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("shop");
    }

    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build();
    Some(provider)
}

/// Exports the traces that are left, within a second. It blocks: call it last, outside of the runtime.
pub fn stop() {
    let Some(provider) = PROVIDER.get() else { return };

    // On a thread of its own, because the exporter ignores its timeout while a collector hangs.
    let (result, results) = mpsc::channel();
    thread::spawn(move || result.send(provider.shutdown_with_timeout(LAST_EXPORT_TIMEOUT)));

    match results.recv_timeout(LAST_EXPORT_TIMEOUT) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "could not export the last traces"),
        Err(_) => tracing::warn!("timed out exporting the last traces"),
    }
}

/// Makes `span` a child of the span that `traceparent` names. Does nothing where traces are off, or if `traceparent` is
/// malformed.
pub fn set_parent(span: &Span, traceparent: &str) {
    if is_enabled()
        && let Some(parent) = parse(traceparent)
    {
        let _ = span.set_parent(parent);
    }
}

/// Links `span` to the span that `traceparent` names. Does nothing where traces are off, or if `traceparent` is
/// malformed.
pub fn add_link(span: &Span, traceparent: &str) {
    if is_enabled()
        && let Some(other) = parse(traceparent)
    {
        span.add_link(other.span().span_context().clone());
    }
}

/// The `traceparent` of `span`; `None` where traces are off, or if the span is not recorded.
pub fn traceparent_of(span: &Span) -> Option<String> {
    if !is_enabled() {
        return None;
    }
    format(&span.context())
}

/// A `traceparent` that starts a new trace, sampled.
pub fn new_traceparent() -> String {
    let generator = RandomIdGenerator::default();
    let root = SpanContext::new(
        generator.new_trace_id(),
        generator.new_span_id(),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    format(&Context::new().with_remote_span_context(root)).unwrap_or_default()
}

/// The same `traceparent` in version 00 of W3C Trace Context, as it is passed on; `None` if it is malformed. Of a later
/// version only the fields of version 00 are kept, and of the flags only "sampled", as the recommendation asks for.
pub fn normalize(traceparent: &str) -> Option<String> {
    format(&parse(traceparent)?)
}

/// The trace id within a normalized `traceparent`, for the log.
pub fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

fn parse(traceparent: &str) -> Option<Context> {
    let context =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(Cow::Borrowed(traceparent)));
    context.span().span_context().is_valid().then_some(context)
}

fn format(context: &Context) -> Option<String> {
    let mut header = Header(Cow::Borrowed(""));
    TraceContextPropagator::new().inject_context(context, &mut header);
    (!header.0.is_empty()).then(|| header.0.into_owned())
}

/// The headers that the propagator reads and writes: `traceparent` alone, since the shop passes no `tracestate` on.
struct Header<'a>(Cow<'a, str>);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(&*self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

impl Injector for Header<'_> {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = Cow::Owned(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL_FORMED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_a_well_formed_traceparent_is_handed_on() {
        assert_eq!(normalize(WELL_FORMED).as_deref(), Some(WELL_FORMED));

        for malformed in [
            "",
            "00",
            "00-0-0-0",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-02",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(normalize(malformed), None, "{malformed}");
        }
    }

    /// A later version may have further fields and flags; a receiver reads those it knows and passes on its own version.
    #[test]
    fn a_traceparent_is_handed_on_in_version_00() {
        for given in [
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-further",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
        ] {
            assert_eq!(normalize(given).as_deref(), Some(WELL_FORMED), "{given}");
        }
        // The propagator does not count the digits of an id, but what leaves has as many as there must be.
        let short = normalize("00-1-1-1").expect("the propagator takes it");
        assert_eq!(short.len(), WELL_FORMED.len());
    }

    #[test]
    fn a_new_trace_has_a_well_formed_traceparent() {
        let new = new_traceparent();
        assert_eq!(normalize(&new), Some(new.clone()));
        assert_ne!(new_traceparent(), new);
    }
}
