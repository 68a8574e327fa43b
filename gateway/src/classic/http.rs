//! Classic frames by HTTP, as Waspmote modules send them (W13): in clear text, and for `/getpost_frame_parser.php` without any
//! proof of who sends. Off unless `gateway.toml` says `[insecure_http]`.
//!
//! [`request`] reads what those clients write, [`answer`] says what they take for an answer, [`places`] bounds what one address
//! can take away from others, [`tokens`] are what `/hw/ps` asks for, [`listener`] is the socket.

pub mod answer;
pub mod form;
//pub mod listener;
pub mod places;
pub mod refusal;
pub mod request;
pub mod tokens;
