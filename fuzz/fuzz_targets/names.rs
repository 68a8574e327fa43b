//! Names as people and certificates spell them: the SAN of a gateway, ids, profiles.
#![no_main]

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{Did, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::profile::{LinkClass, Profile, Radio};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = text.parse::<GatewayName>() {
        assert_eq!(name.to_string().parse(), Ok(name));
        assert_eq!(name.to_string(), text, "a certificate has one spelling");
    }
    let _ = (text.parse::<Did>(), text.parse::<Sid>(), text.parse::<Net>());
    let _ = (text.parse::<GatewayGroup>(), text.parse::<GatewayId>());
    if let Ok(profile) = text.parse::<Profile>() {
        assert_eq!(profile.as_str(), text);
    }
    let _ = (text.parse::<LinkClass>(), text.parse::<Radio>());
});
