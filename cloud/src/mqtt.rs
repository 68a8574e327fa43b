//! The way to an MQTT broker, from checked words to the client's options.

use fivefold_keep::broker::{Broker, Login, Unprepared};
use fivefold_sinks::broker::dialler;
use rumqttc::MqttOptions;

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
    let dial = dialler(broker)?;
    options.set_socket_connector(move |_, _| dial());
    Ok(options)
}
