//! From `[lorawan]` of `gateway.toml` to what a session needs.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::Did;
use fivefold_keep::broker::{Broker, Keys, Words};
use fivefold_keep::share::GatewayLorawan;

use super::{Application, NetworkServer};
use crate::gateway::Activation;

pub use fivefold_keep::broker::{Login, Tls, Unprepared, Wrong};

const KEYS: Keys = Keys {
    broker: "lorawan.broker",
    ca_file: "lorawan.ca_file",
    username: "lorawan.username",
    key_file: "lorawan.key_file",
    insecure_mqtt: "lorawan.insecure_mqtt",
};

/// `[lorawan]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which network server speaks.
    pub server: NetworkServer,
    /// Whose devices are heard.
    pub application: Application,
    /// Its broker.
    pub broker: Broker,
    /// Under which name the broker keeps what it could not deliver.
    pub client_id: String,
    activation: Activation,
    abp: HashSet<Did>,
}

impl Config {
    /// Checks the words of `[lorawan]` in `folder`, for the gateway of this name.
    ///
    /// # Errors
    /// The first that is wrong, with what to write instead.
    pub fn check(words: &GatewayLorawan, folder: &Path, name: GatewayName) -> Result<Self, Wrong> {
        let server =
            words.kind.parse().map_err(|e: super::NoNetworkServer| Wrong::new("lorawan.kind", e.to_string()))?;
        let application = words
            .application
            .parse()
            .map_err(|e: super::NoApplication| Wrong::new("lorawan.application", e.to_string()))?;
        let of_broker = Words {
            broker: &words.broker,
            ca_file: words.ca_file.as_deref(),
            username: words.username.as_deref(),
            password_file: words.password_file.as_deref(),
            certificate_file: words.certificate_file.as_deref(),
            key_file: words.key_file.as_deref(),
            insecure_mqtt: words.insecure_mqtt,
        };
        let broker = Broker::check(&of_broker, &KEYS, folder)?;
        let activation = match words.activation.as_str() {
            "otaa" => Activation::OverTheAir,
            "abp" => Activation::Personalisation,
            _ => return Err(Wrong::new("lorawan.activation", "write otaa, or abp for devices without a join")),
        };
        let mut abp = HashSet::new();
        for dev_eui in &words.abp {
            abp.insert(dev_eui.parse().map_err(|_| Wrong::new("lorawan.abp", "a DevEUI has 16 hex digits"))?);
        }
        // Every broker of MQTT 3.1.1 takes 23 letters and digits; another gateway under the same name would cut this one off.
        let client_id = format!("ff{}{}", name.net, name.gateway);
        Ok(Self { server, application, broker, client_id, activation, abp })
    }

    /// How a device came into its network.
    pub fn activation(&self, dev_eui: Did) -> Activation {
        if self.abp.contains(&dev_eui) { Activation::Personalisation } else { self.activation }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broker { host, port, .. } = &self.broker;
        write!(f, "{} at {host}:{port}, application {}", self.server, self.application.as_str())?;
        write!(f, ", {}", self.broker.how())?;
        match (self.activation, self.abp.len()) {
            (Activation::OverTheAir, 0) => Ok(()),
            (Activation::OverTheAir, n) => write!(f, "; {n} under ABP, which is no E1"),
            (Activation::Personalisation, _) => write!(f, "; all under ABP, which is no E1"),
        }
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::id::{GatewayId, Net};

    use super::*;

    const NAME: GatewayName = GatewayName { net: Net(7), gateway: GatewayId(0x11) };

    fn words() -> GatewayLorawan {
        GatewayLorawan {
            kind: "chirpstack".into(),
            broker: "mqtts://lns.example:8883".into(),
            application: "8d3c4b60-5f2e-4f0b-9d5a-3b1f6f0c7a11".into(),
            activation: "otaa".into(),
            abp: vec!["70b3d57ed0052a9c".into()],
            ca_file: Some("broker-ca.pem".into()),
            username: Some("fivefold".into()),
            password_file: Some("broker-password".into()),
            certificate_file: None,
            key_file: None,
            insecure_mqtt: false,
        }
    }

    fn check(words: &GatewayLorawan) -> Result<Config, Wrong> {
        Config::check(words, Path::new("/farm"), NAME)
    }

    #[test]
    fn the_operators_words_become_a_connection() {
        let config = check(&words()).unwrap();
        let broker = &config.broker;
        assert_eq!((&*broker.host, broker.port, &*config.client_id), ("lns.example", 8883, "ff0000000700000011"));
        assert_eq!(config.activation(Did([1; 8])), Activation::OverTheAir);
        assert_eq!(config.activation("70b3d57ed0052a9c".parse().unwrap()), Activation::Personalisation);
        assert!(config.to_string().contains("TLS; 1 under ABP"), "{config}");
        let clear = GatewayLorawan { broker: "mqtt://[::1]:1883".into(), insecure_mqtt: true, ..words() };
        assert!(check(&clear).unwrap().to_string().contains("INSECURE"));
    }

    #[test]
    fn every_mistake_is_named_by_its_key() {
        let of = |words: GatewayLorawan| check(&words).unwrap_err().key;
        assert_eq!(of(GatewayLorawan { kind: "ttn".into(), ..words() }), "lorawan.kind");
        assert_eq!(of(GatewayLorawan { application: "+".into(), ..words() }), "lorawan.application");
        assert_eq!(of(GatewayLorawan { broker: "mqtts://:8883".into(), ..words() }), "lorawan.broker");
        assert_eq!(of(GatewayLorawan { insecure_mqtt: true, ..words() }), "lorawan.insecure_mqtt");
        assert_eq!(of(GatewayLorawan { ca_file: None, ..words() }), "lorawan.ca_file");
        assert_eq!(of(GatewayLorawan { key_file: Some("k".into()), ..words() }), "lorawan.key_file");
        assert_eq!(of(GatewayLorawan { username: None, ..words() }), "lorawan.username");
        assert_eq!(of(GatewayLorawan { activation: "yes".into(), ..words() }), "lorawan.activation");
        assert_eq!(of(GatewayLorawan { abp: vec!["70b3".into()], ..words() }), "lorawan.abp");
    }
}
