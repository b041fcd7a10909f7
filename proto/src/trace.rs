//! How a trace goes on in another process: W3C Trace Context's `traceparent`, in HTTP headers, gRPC metadata and
//! [`ReportRequest`](crate::v1::ReportRequest). Who caused nothing that is recorded says nothing.

use std::collections::HashMap;

use opentelemetry::{Context, propagation::TextMapPropagator as _, trace::TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// The header's and the metadata's name.
pub const TRACEPARENT: &str = "traceparent";

/// Says that the current span is the cause; nothing if it is not recorded.
#[must_use]
pub fn traceparent() -> Option<String> {
    let current = Context::current();
    if !current.span().span_context().is_sampled() {
        return None;
    }
    let mut said = HashMap::new();
    TraceContextPropagator::new().inject_context(&current, &mut said);
    said.remove(TRACEPARENT)
}

/// The cause that a `traceparent` names; nothing if it names none, or one that is not recorded.
#[must_use]
pub fn cause(traceparent: &str) -> Option<Context> {
    if traceparent.is_empty() {
        return None; // as nearly always
    }
    let said = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let cause = TraceContextPropagator::new().extract_with_context(&Context::new(), &said);
    let is_recorded = cause.span().span_context().is_sampled();
    is_recorded.then_some(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_recorded_goes_on() {
        let cause = cause(SAMPLED).unwrap();
        assert_eq!(
            cause.span().span_context().trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        let _current = cause.attach();
        assert_eq!(traceparent().as_deref(), Some(SAMPLED));
    }

    #[test]
    fn what_is_not_does_not() {
        assert_eq!(traceparent(), None);
        for said in [
            "",
            "nonsense",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
        ] {
            assert!(cause(said).is_none(), "{said}");
        }
    }
}
