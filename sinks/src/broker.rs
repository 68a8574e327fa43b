//! The socket to a broker, from checked words.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fivefold_keep::broker::{Broker, Unprepared};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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
            let socket = Prompt(socket);
            Ok(match tls {
                Some((name, connector)) => Box::new(connector.connect(name, socket).await?) as Box<dyn Socket>,
                None => Box::new(socket),
            })
        })
    }))
}

/// Acknowledges what it reads at once. A broker that holds small answers back until the one before is acknowledged (Nagle's
/// algorithm, Mosquitto's default) waits 40 ms for a kernel that delays that, whenever we have nothing to send.
struct Prompt(TcpStream);

impl AsyncRead for Prompt {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buf);
        // The kernel forgets it (tcp(7)). Where it cannot be, it is slower.
        #[cfg(target_os = "linux")]
        if buf.filled().len() > before {
            let _ = self.0.set_quickack(true);
        }
        polled
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
