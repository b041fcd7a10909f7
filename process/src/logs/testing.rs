//! Logs and traces of a piece of code.

use std::{io, sync::Arc};

use opentelemetry_sdk::trace::SdkTracer;
use parking_lot::Mutex;
use serde_json::Value;
use tracing::subscriber::with_default;
use tracing_subscriber::{fmt::format::JsonFields, layer::SubscriberExt as _};

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that are logged meanwhile; spans are the tracer's.
pub(crate) fn logged(tracer: Option<SdkTracer>, log: impl FnOnce()) -> Vec<Value> {
    let written = Written::default();
    let writer = written.clone();
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(move || writer.clone())
        .fmt_fields(JsonFields::new())
        .event_format(super::json::Json);
    let traces = tracer.map(|tracer| tracing_opentelemetry::layer().with_tracer(tracer));
    with_default(tracing_subscriber::registry().with(logs).with(traces), log);
    let written = String::from_utf8(written.0.lock().clone()).unwrap();
    written.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
