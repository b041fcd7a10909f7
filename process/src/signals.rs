//! SIGINT and SIGTERM.

use tokio_util::sync::CancellationToken;

/// Cancels `shutdown` at the first SIGINT (Ctrl-C) or SIGTERM (`docker stop`), from the moment this returns: a signal
/// that comes while the process still starts ends it as cleanly as any later one. A signal that cannot be listened to
/// is logged and keeps its default, the end of the process.
///
/// Call it inside a tokio runtime.
#[cfg(unix)]
pub(crate) fn cancel_at_signal(shutdown: &CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};

    for (name, kind) in [("SIGINT", SignalKind::interrupt()), ("SIGTERM", SignalKind::terminate())]
    {
        let shutdown = shutdown.clone();
        match signal(kind) {
            Ok(mut signals) => drop(tokio::spawn(async move {
                signals.recv().await;
                tracing::info!("{name}: shutting down");
                shutdown.cancel();
            })),
            Err(error) => tracing::error!(%error, "cannot listen for {name}"),
        }
    }
}

/// Cancels `shutdown` at the first Ctrl-C.
#[cfg(not(unix))]
pub(crate) fn cancel_at_signal(shutdown: &CancellationToken) {
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            shutdown.cancel();
        }
    });
}
