//! Traces over OTLP (HTTP, protobuf), when `OTEL_EXPORTER_OTLP_ENDPOINT` is set, by the names of OpenTelemetry's semantic
//! conventions. One trace leads from the HTTP request through the message to the worker's SQL: the context travels as
//! W3C Trace Context in the AMQP header `traceparent`.

use std::{
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt as _, TraceState, TracerProvider as _},
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    Layer,
    filter::{FilterExt as _, Targets, dynamic_filter_fn},
    registry::LookupSpan,
};

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// The most that sending the last traces may take, when the process ends.
const LAST_EXPORT: Duration = Duration::from_secs(1);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Whether traces leave this process.
#[must_use]
pub fn is_on() -> bool {
    PROVIDER.get().is_some()
}

/// The layer that turns spans into traces; none unless an endpoint is named.
pub(super) fn layer<S>() -> Option<impl Layer<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let named = |name: &&str| std::env::var(name).is_ok_and(|endpoint| !endpoint.is_empty());
    ENDPOINTS.iter().find(|name| named(name))?;
    // For an endpoint by https, whose client asks for the process's own choice of cryptography.
    let _ = rustls::crypto::ring::default_provider().install_default();
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
    let tracer = provider.tracer("shop");
    PROVIDER.set(provider).ok()?;
    let own = Targets::new()
        .with_target("shop", LevelFilter::INFO)
        .with_target("sea_orm", LevelFilter::INFO);
    // A statement that belongs to nothing, such as the sweeper's every second, is no trace of its own.
    let below_something = dynamic_filter_fn(|metadata, context| {
        !metadata.target().starts_with("sea_orm") || context.lookup_current().is_some()
    });
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false);
    Some(layer.with_filter(own.and(below_something)))
}

/// Sends what is still here. Call it last, and outside of the runtime: it blocks, for [`LAST_EXPORT`] at most.
pub fn stop() {
    let Some(provider) = PROVIDER.get() else { return };
    // On a thread of its own: the exporter does not heed a limit while a collector hangs.
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(provider.shutdown_with_timeout(LAST_EXPORT)));
    match ended.recv_timeout(LAST_EXPORT) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the last traces were not exported"),
        Err(_) => tracing::warn!("the last traces were not exported in time"),
    }
}

/// Makes `span` a child of the span that `traceparent` names.
pub fn adopt(span: &Span, traceparent: &str) {
    if is_on()
        && let Some(parent) = context(traceparent)
    {
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Links `span` to the span that `traceparent` names, which was handled together with others.
pub fn link(span: &Span, traceparent: &str) {
    if is_on()
        && let Some(other) = context(traceparent)
    {
        span.add_link(other);
    }
}

/// The `traceparent` of a span that is exported; `None` where traces are off.
#[must_use]
pub fn of(span: &Span) -> Option<String> {
    if !is_on() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let flags = context.trace_flags().to_u8();
    context
        .is_valid()
        .then(|| format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
}

/// The trace's id in a `traceparent`, for the log.
#[must_use]
pub fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

/// A well-formed `traceparent` (W3C Trace Context, version 00).
#[must_use]
pub fn is_valid(traceparent: &str) -> bool {
    let lengths = traceparent.split('-').map(str::len).eq([2, 32, 16, 2]);
    let hex = traceparent
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    lengths && hex && context(traceparent).is_some()
}

fn context(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    (version == "00" && context.is_valid()).then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_handed_on() {
        assert!(is_valid("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00",
            "00-0-0-0",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-02",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
        assert!(is_valid(&crate::queue::new_traceparent()));
    }
}
