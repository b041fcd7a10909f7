//! SIGINT and SIGTERM.

use tokio_util::sync::CancellationToken;

/// Cancels `shutdown` at the first SIGINT (Ctrl-C) or SIGTERM (`docker stop`). A signal that cannot be listened to is
/// logged and never comes: the process still ends by SIGKILL.
pub(crate) async fn cancel_at_signal(shutdown: CancellationToken) {
    tokio::select! {
        () = interrupt() => tracing::info!("SIGINT: shutting down"),
        () = terminate() => tracing::info!("SIGTERM: shutting down"),
    }
    shutdown.cancel();
}

async fn interrupt() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::error!(%error, "cannot listen for SIGINT");
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
async fn terminate() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::error!(%error, "cannot listen for SIGTERM");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
async fn terminate() {
    std::future::pending::<()>().await;
}
