//! Counters for Prometheus, on loopback: the text format 0.0.4 by hand, for one page without parameters.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use fivefold_audit::selfcheck::Standing;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use crate::daemon::Event;
use crate::gateway::Gateway;

/// The page: the counters as they are.
pub(crate) fn page(gateway: &Gateway) -> String {
    let mut page = String::from(
        "# HELP fivefold_gateway_rejected_total What was refused, by code of docs/protocol.md 14 and device.\n\
         # TYPE fivefold_gateway_rejected_total counter\n",
    );
    let mut counts: Vec<_> = gateway.tally().totals().collect();
    counts.sort_by_key(|c| (c.code, c.sid));
    for c in counts {
        let sid = c.sid.map_or(String::new(), |s| s.to_string());
        let _ = writeln!(page, "fivefold_gateway_rejected_total{{code=\"{}\",sid=\"{sid}\"}} {}", c.code, c.count);
    }
    for (name, help, value) in [
        ("spool_bytes", "Bytes of envelopes that the cloud does not have yet.", gateway.spool_used()),
        ("devices", "Devices that are let in.", gateway.devices() as u64),
        ("classic_devices", "Classic devices that are known.", gateway.classic_devices() as u64),
        ("synced_neighbours", "Neighbours whose frames are accepted.", gateway.link().neighbours().synced() as u64),
        ("state_version", "Version of the state that the cloud pushed.", gateway.state_version()),
    ] {
        let _ = writeln!(page, "# HELP fivefold_gateway_{name} {help}");
        let _ = writeln!(page, "# TYPE fivefold_gateway_{name} gauge\nfivefold_gateway_{name} {value}");
    }
    page
}

/// Requests that are answered at once.
const REQUESTS: usize = 16;

/// Answers every request with the page. The engine writes it in its turn: what was received before is counted in it.
pub(crate) async fn serve(listener: TcpListener, engine: SyncSender<Event>, standing: Arc<Standing>) {
    let places = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let (engine, standing) = (engine.clone(), standing.clone());
        tokio::spawn(async move {
            let _place = place;
            let mut request = [0; 1024];
            let read = tokio::time::timeout(std::time::Duration::from_secs(2), stream.read(&mut request)).await;
            if read.is_ok_and(|r| r.is_ok()) {
                let (asked, answer) = oneshot::channel();
                let _ = tokio::task::spawn_blocking(move || engine.send(Event::Page(asked))).await;
                let Ok(page) = answer.await else { return };
                let page = page + &standing.metrics("fivefold_gateway");
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    page.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(page.as_bytes()).await;
            }
        });
    }
}
