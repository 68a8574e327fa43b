//! The way to an MQTT broker, from checked words to the client's options.

use fivefold_keep::broker::{Broker, Login, Unprepared};
use rumqttc::MqttOptions;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Seconds between two signs of life.
const KEEP_ALIVE: u16 = 30;
/// Bytes of a packet, at most.
const LONGEST: usize = 1 << 20;

/// Reads the files that `broker` names. What is not acknowledged is sent again by us, from the store: the broker has nothing to
/// keep.
pub(crate) fn options(broker: &Broker, client_id: &str, login: Option<Login>) -> Result<MqttOptions, Unprepared> {
    let (host, port) = (broker.host.clone(), broker.port);
    let mut options = MqttOptions::new(client_id, (host.clone(), port));
    options.set_keep_alive(KEEP_ALIVE);
    options.set_clean_session(true);
    options.set_max_packet_size(LONGEST, LONGEST);
    if let Some(login) = login {
        options.set_credentials(login.username, login.password.to_vec());
    }
    let Some(tls) = broker.tls()? else {
        options.set_socket_connector(move |_, _| {
            let host = host.clone();
            async move { TcpStream::connect((host, port)).await }
        });
        return Ok(options);
    };
    let connector = TlsConnector::from(tls.client);
    options.set_socket_connector(move |_, _| {
        let (host, name, connector) = (host.clone(), tls.name.clone(), connector.clone());
        async move { connector.connect(name, TcpStream::connect((host, port)).await?).await }
    });
    Ok(options)
}
