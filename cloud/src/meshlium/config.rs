//! From `[meshlium_mqtt]` of `cloud.toml` to what the publisher needs.

use std::fmt;
use std::path::Path;

use fivefold_keep::broker::{Broker, Keys, Words};
use fivefold_keep::share::CloudMeshliumMqtt;
use rumqttc::MqttOptions;

use super::template::Template;

pub use fivefold_keep::broker::{Unprepared, Wrong};

const KEYS: Keys = Keys {
    broker: "meshlium_mqtt.broker",
    ca_file: "meshlium_mqtt.ca_file",
    username: "meshlium_mqtt.username",
    // There is no such word.
    key_file: "meshlium_mqtt",
    insecure_mqtt: "meshlium_mqtt.insecure_mqtt",
};

/// `[meshlium_mqtt]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshliumMqtt {
    broker: Broker,
    client_id: String,
    /// What stands for `#MESHLIUM#`.
    pub(super) name: String,
    pub(super) topic: Template,
    pub(super) message: Template,
}

impl MeshliumMqtt {
    /// Checks the words of `[meshlium_mqtt]` in `folder`.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(words: &CloudMeshliumMqtt, folder: &Path) -> Result<Self, Wrong> {
        let of_broker = Words {
            broker: &words.broker,
            ca_file: words.ca_file.as_deref(),
            username: words.username.as_deref(),
            password_file: words.password_file.as_deref(),
            certificate_file: None,
            key_file: None,
            insecure_mqtt: words.insecure_mqtt,
        };
        let broker = Broker::check(&of_broker, &KEYS, folder)?;
        let template =
            |key, text: &str| text.parse::<Template>().map_err(|refused| Wrong::new(key, refused.to_string()));
        let topic = template("meshlium_mqtt.topic", &words.topic)?
            .topic()
            .map_err(|refused| Wrong::new("meshlium_mqtt.topic", refused.to_string()))?;
        let message = template("meshlium_mqtt.message", &words.message)?;
        Ok(Self { broker, client_id: words.client_id.clone(), name: words.name.clone(), topic, message })
    }

    /// Reads the files that it names.
    ///
    /// # Errors
    /// [`Unprepared`].
    pub fn prepare(&self) -> Result<MqttOptions, Unprepared> {
        crate::mqtt::options(&self.broker, &self.client_id, self.broker.login()?)
    }
}

impl fmt::Display for MeshliumMqtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}, {}, as {}", self.broker.host, self.broker.port, self.broker.how(), self.client_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> CloudMeshliumMqtt {
        CloudMeshliumMqtt { ca_file: Some("ca.pem".into()), ..CloudMeshliumMqtt::at("mqtts://broker.example:8883") }
    }

    fn check(words: &CloudMeshliumMqtt) -> Result<MeshliumMqtt, &'static str> {
        MeshliumMqtt::check(words, Path::new("/cloud")).map_err(|wrong| wrong.key)
    }

    #[test]
    fn the_operators_words_become_a_connection_and_every_mistake_is_named_by_its_key() {
        assert_eq!(check(&words()).unwrap().to_string(), "broker.example:8883, TLS, as fivefold-cloud");
        let clear = CloudMeshliumMqtt { insecure_mqtt: true, ..CloudMeshliumMqtt::at("mqtt://[::1]:1883") };
        assert_eq!(check(&clear).unwrap().to_string(), "::1:1883, MQTT in clear text (INSECURE), as fivefold-cloud");
        let of = |words: CloudMeshliumMqtt| check(&words).unwrap_err();
        assert_eq!(of(CloudMeshliumMqtt { broker: "tcp://a:1".into(), ..words() }), "meshlium_mqtt.broker");
        assert_eq!(of(CloudMeshliumMqtt { insecure_mqtt: true, ..words() }), "meshlium_mqtt.insecure_mqtt");
        assert_eq!(of(CloudMeshliumMqtt { ca_file: None, ..words() }), "meshlium_mqtt.ca_file");
        let password = CloudMeshliumMqtt { password_file: Some("p".into()), ..words() };
        assert_eq!(of(password), "meshlium_mqtt.username");
        assert_eq!(of(CloudMeshliumMqtt { topic: "a/#".into(), ..words() }), "meshlium_mqtt.topic");
        assert_eq!(of(CloudMeshliumMqtt { message: "#WHAT#".into(), ..words() }), "meshlium_mqtt.message");
    }
}
