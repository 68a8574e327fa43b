//! What Meshlium's MQTT connector does (W15): each value of a classic frame as a message to a broker, by templates.

mod config;
mod publisher;
pub mod template;

pub use config::{MeshliumMqtt, Unprepared, Wrong};
pub use publisher::run;
