//! Whether the manager's clock is this machine's.

use super::{finding::Found, fleet::Fleet};

/// Dashboards show it.
const FAR: f64 = 2.0;

pub(super) fn check(fleet: &Fleet) -> Found {
    let off = fleet.ahead.abs();
    if off - fleet.unsure > FAR {
        let side = if fleet.ahead > 0.0 { "ahead of" } else { "behind" };
        return Found::warning(
            format!("the manager's clock is {off:.1} s {side} this machine's"),
            "set both by NTP (timedatectl): ages of reports on dashboards are off by as much",
        );
    }
    Found::ok(format!("within {FAR} s of this machine's"))
}
