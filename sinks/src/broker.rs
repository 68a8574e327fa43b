//! The socket to a broker, from checked words.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use fivefold_keep::broker::{Broker, Unprepared};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection, in clear text or by TLS.
pub trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for S {}

/// A connection under way.
pub type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Socket>>> + Send>>;

/// Reads the files that `broker` names. What comes out dials it, each time anew.
///
/// # Errors
/// [`Unprepared`].
pub fn dialler(broker: &Broker) -> Result<Arc<dyn Fn() -> Dialling + Send + Sync>, Unprepared> {
    let (host, port) = (broker.host.clone(), broker.port);
    let tls = broker.tls()?.map(|tls| (tls.name, TlsConnector::from(tls.client)));
    Ok(Arc::new(move || {
        let (host, tls) = (host.clone(), tls.clone());
        Box::pin(async move {
            let socket = TcpStream::connect((host, port)).await?;
            // A message is small: it must not wait for the answer to the one before it (RFC 9293, 3.7.4).
            socket.set_nodelay(true)?;
            Ok(match tls {
                Some((name, connector)) => Box::new(connector.connect(name, socket).await?) as Box<dyn Socket>,
                None => Box::new(socket),
            })
        })
    }))
}
