//! A log line as JSON, for Loki: what is said, what the spans around it say, and which trace it is part of, all at the top
//! level.

use std::fmt;

use opentelemetry::trace::TraceContextExt as _;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_serde::fields::AsMap as _;
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime as _, SystemTime},
    },
    registry::{LookupSpan, Scope},
};

/// Writes one object a line. Spans' fields have to be formatted as [`JsonFields`].
pub(super) struct Json;

#[derive(Serialize)]
struct Line {
    timestamp: String,
    level: &'static str,
    #[serde(flatten)]
    fields: Map<String, Value>,
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for Json {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // The nearest wins: inner spans over outer ones, the event over all.
        let mut fields = Map::new();
        let spans = context.event_scope().into_iter().flat_map(Scope::from_root);
        for span in spans {
            let extensions = span.extensions();
            let formatted = extensions.get::<FormattedFields<JsonFields>>();
            fields.extend(
                formatted.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(Map::new),
            );
        }
        if let Ok(Value::Object(own)) = serde_json::to_value(event.field_map()) {
            fields.extend(own);
        }
        // What the line says of itself stands once; what is for traces alone, nowhere.
        let of_line = ["timestamp", "level", "target", "trace_id", "span_id"];
        fields.retain(|name, _| !of_line.contains(&name.as_str()) && !name.starts_with("otel."));
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let current = opentelemetry::Context::current();
        let trace = current.span().span_context().clone();
        let of_trace = |id: String| trace.is_valid().then_some(id);
        let line = Line {
            timestamp,
            level: event.metadata().level().as_str(),
            fields,
            target: event.metadata().target().to_owned(),
            trace_id: of_trace(trace.trace_id().to_string()),
            span_id: of_trace(trace.span_id().to_string()),
        };
        writeln!(writer, "{}", serde_json::to_string(&line).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::{info_span, warn};

    use super::super::testing::logged;

    #[test]
    fn a_line_says_what_it_is_part_of() {
        let provider = SdkTracerProvider::builder().build();
        let lines = logged(Some(provider.tracer("")), || {
            warn!(shard_id = 1, "outside");
            let _outer = info_span!("interaction", shard_id = 3, command = "ping").entered();
            let _inner =
                info_span!("call", otel.kind = "client", route = tracing::field::Empty).entered();
            tracing::Span::current().record("route", "/callback");
            warn!(error = "refused\n\"once\"", "inside");
            warn!(shard_id = 4, trace_id = "mine", "said anew");
        });
        let [outside, inside, anew] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(outside["shard_id"], 1);
        assert_eq!(outside["message"], "outside");
        assert_eq!(outside["level"], "WARN");
        assert!(outside["timestamp"].as_str().unwrap().ends_with('Z'), "{outside}");
        assert_eq!(outside["target"], module_path!());
        assert_eq!(outside.get("trace_id"), None);
        assert_eq!(inside["shard_id"], 3);
        assert_eq!(inside["command"], "ping");
        assert_eq!(inside["route"], "/callback");
        assert_eq!(inside.get("otel.kind"), None);
        assert_eq!(inside["error"], "refused\n\"once\"");
        assert_eq!(inside["trace_id"].as_str().unwrap().len(), 32);
        assert_eq!(inside["span_id"].as_str().unwrap().len(), 16);
        assert_eq!(anew["shard_id"], 4);
        assert_eq!(anew["trace_id"], inside["trace_id"]);
    }

    #[test]
    fn without_traces_it_says_the_shard_all_the_same() {
        let lines = logged(None, || {
            let _span = info_span!("interaction", shard_id = 3).entered();
            warn!("inside");
        });
        assert_eq!(lines[0]["shard_id"], 3);
        assert_eq!(lines[0].get("trace_id"), None);
    }
}
