//! Classic frames by HTTP, as Waspmote modules send them (W13): in clear text, and for `/getpost_frame_parser.php` without any
//! proof of who sends. Off unless `gateway.toml` says `[insecure_http]`.
//!
//! [`request`] reads what those clients write, [`answer`] says what they take for an answer, [`places`] bounds what one address
//! can take away from others, [`tokens`] are what `/hw/ps` asks for, [`listener`] is the socket.

use std::path::Path;

use fivefold_keep::share::GatewayHttp;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::classic::Desk;
use crate::daemon::DaemonError;

pub mod answer;
pub mod form;
pub mod listener;
pub mod places;
pub mod refusal;
pub mod request;
pub mod tokens;

/// Starts the listener that a gateway's settings name.
///
/// # Errors
/// Its address or its tokens cannot be had.
pub(crate) async fn start(folder: &Path, settings: &GatewayHttp, desk: Desk) -> Result<JoinHandle<()>, DaemonError> {
    let tokens = tokens::Tokens::of(folder)?;
    let socket = TcpListener::bind(settings.bind).await.map_err(|e| DaemonError::Http(settings.bind, e))?;
    let bounds = places::Bounds {
        connections: settings.connections,
        connections_per_address: settings.connections_per_address,
        requests_a_minute: settings.requests_a_minute,
    };
    let request = std::time::Duration::from_secs(settings.request_seconds.into());
    let patience = listener::Patience { request, ..Default::default() };
    tracing::warn!("classic frames are taken in clear text at {}: whoever reaches it is heard", settings.bind);
    Ok(tokio::spawn(listener::Listener::new(desk, tokens, bounds, patience).serve(socket)))
}
