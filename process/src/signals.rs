//! SIGINT and SIGTERM.

/// Completes at the first SIGINT (Ctrl-C) or SIGTERM (`docker stop`). A signal that cannot be listened to is logged,
/// and then never completes: the process still ends by SIGKILL.
pub async fn shutdown_signal() {
    tokio::select! {
        () = interrupt() => tracing::info!("SIGINT: shutting down"),
        () = terminate() => tracing::info!("SIGTERM: shutting down"),
    }
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
