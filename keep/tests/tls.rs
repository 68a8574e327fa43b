//! E4 by real handshakes in memory: every wrong role, name, issuer, time, group and version is refused with its code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Did, GatewayId, Net};
use fivefold_core::time::Millis;
use fivefold_keep::ca::{Authority, Role};
use fivefold_keep::tls::{
    Anchor, Groups, Identity, LiveIdentity, LiveRevoked, LiveRoll, May, Pin, Revoked, Roll, Serial, Standing, TlsError,
    certificate_hash, classify, classify_tls, client_config_api, client_config_e4, client_config_enrol, prove_gateway,
    server_config_api, server_config_e4, server_config_enrol, wants_enrolment,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Eku, IsCa, Issuer, KeyPair, SanType};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

const GATEWAY: GatewayName = GatewayName { net: Net(7), gateway: GatewayId(0xA1) };
const CLOUD: &str = "cloud.example";
const DEVICE: Did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);

#[expect(clippy::disallowed_methods, reason = "rustls reads the clock too: certificates must fit it")]
fn now() -> Millis {
    Millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

struct Operator {
    authority: Authority,
    issuer: Issuer<'static, KeyPair>,
    ca: Anchor,
    roll: Arc<LiveRoll>,
    book: Mutex<HashMap<Serial, (GatewayName, Standing)>>,
    revoked: Arc<LiveRevoked>,
}

impl Operator {
    fn new() -> Self {
        let (authority, key) = Authority::create("field").unwrap();
        let key = KeyPair::try_from(&key[..]).unwrap();
        let issuer = Issuer::from_ca_cert_pem(authority.certificate(), key).unwrap();
        let ca = Anchor::from_pem(authority.certificate().as_bytes()).unwrap();
        let revoked = Arc::new(ArcSwap::from_pointee(Revoked::default()));
        Self { authority, issuer, ca, roll: Arc::default(), book: Mutex::default(), revoked }
    }

    fn issue(&self, role: &Role) -> Identity {
        self.issue_by(&self.authority, role, 0)
    }

    /// By the CA or an issuing key, some days ago for 30 days, and entered in the book.
    fn issue_by(&self, authority: &Authority, role: &Role, days_ago: u64) -> Identity {
        let issued = authority.issue(role, now().0 / 1000 - days_ago * 86_400, 30).unwrap();
        let identity = Identity::from_pkcs8(issued.certified.chain.as_bytes(), &issued.key).unwrap();
        if let Role::Gateway(net, gateway) = role {
            self.enter(&identity, GatewayName { net: *net, gateway: *gateway }, Standing::InForce);
        }
        identity
    }

    fn enter(&self, identity: &Identity, name: GatewayName, standing: Standing) {
        let mut book = self.book.lock().unwrap();
        book.insert(identity.serial().clone(), (name, standing));
        let roll: Roll = book.iter().map(|(serial, (name, standing))| (serial.clone(), *name, *standing)).collect();
        self.roll.store(Arc::new(roll));
    }

    fn gateway(&self) -> Identity {
        self.issue(&Role::Gateway(GATEWAY.net, GATEWAY.gateway))
    }

    fn cloud(&self) -> Identity {
        self.issue(&Role::Cloud(vec![CLOUD.into(), "127.0.0.1".into()]))
    }

    /// A certificate that the operator's CA would not make, but signed by it.
    fn odd(&self, purposes: &[Eku], names: &[SanType], days_from_now: (i64, i64)) -> Identity {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = purposes.to_vec();
        params.subject_alt_names = names.to_vec();
        params.is_ca = IsCa::ExplicitNoCa;
        let at = |days: i64| {
            let seconds = (now().0 / 1000) as i64 + days * 86_400;
            rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds as u64)
        };
        (params.not_before, params.not_after) = (at(days_from_now.0), at(days_from_now.1));
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity::from_pkcs8(pem.as_bytes(), &key.serialize_der()).unwrap()
    }

    fn server(&self) -> ServerConfig {
        server_config_e4(&LiveIdentity::new(self.cloud()), &self.ca, self.roll.clone(), Groups::HybridOnly).unwrap()
    }

    fn client(&self) -> ClientConfig {
        client_config_e4(&LiveIdentity::new(self.gateway()), &self.ca, self.revoked.clone(), Groups::HybridOnly)
            .unwrap()
    }

    /// A client that shows whatever it likes, and otherwise does as ours.
    fn client_with(&self, identity: Identity) -> ClientConfig {
        let mut config = self.client();
        config.client_auth_cert_resolver = Arc::new(LiveIdentity::new(identity));
        config
    }

    /// A server that shows whatever it likes, and otherwise does as ours.
    fn server_with(&self, identity: Identity) -> ServerConfig {
        let mut config = self.server();
        config.cert_resolver = Arc::new(LiveIdentity::new(identity));
        config
    }

    fn revoke(&self, gateway: &Identity) {
        self.enter(gateway, GATEWAY, Standing::Revoked);
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

struct Ends {
    client: ClientConnection,
    server: ServerConnection,
    client_end: Result<(), rustls::Error>,
    server_end: Result<(), rustls::Error>,
}

/// Carries bytes between both until neither has more to say.
fn shake_as(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Ends {
    let mut ends = Ends {
        client: ClientConnection::new(client.clone(), name.to_owned().try_into().unwrap()).unwrap(),
        server: ServerConnection::new(server.clone()).unwrap(),
        client_end: Ok(()),
        server_end: Ok(()),
    };
    loop {
        let mut wire = Vec::new();
        while ends.client.wants_write() {
            ends.client.write_tls(&mut wire).unwrap();
        }
        let mut back = Vec::new();
        if ends.server_end.is_ok() {
            let mut wire = &wire[..];
            while !wire.is_empty() && ends.server_end.is_ok() {
                ends.server.read_tls(&mut wire).unwrap();
                ends.server_end = ends.server.process_new_packets().map(drop);
            }
        }
        while ends.server.wants_write() {
            ends.server.write_tls(&mut back).unwrap();
        }
        if ends.client_end.is_ok() {
            let mut back = &back[..];
            while !back.is_empty() && ends.client_end.is_ok() {
                ends.client.read_tls(&mut back).unwrap();
                ends.client_end = ends.client.process_new_packets().map(drop);
            }
        }
        if wire.is_empty() && back.is_empty() {
            return ends;
        }
    }
}

fn shake(client: ClientConfig, server: ServerConfig) -> Ends {
    shake_as(&Arc::new(client), &Arc::new(server), CLOUD)
}

fn at_server(ends: &Ends) -> Rejected {
    classify_tls(ends.server_end.as_ref().expect_err("the server took it"))
}

fn at_client(ends: &Ends) -> Rejected {
    classify_tls(ends.client_end.as_ref().expect_err("the client took it"))
}

#[test]
fn a_gateway_and_its_cloud_agree_on_a_hybrid_group_and_on_who_they_are() {
    let operator = Operator::new();
    let mut ends = shake(operator.client(), operator.server());
    assert!(ends.client_end.is_ok() && ends.server_end.is_ok());
    let proven = prove_gateway(&ends.server, &operator.roll.load(), now()).unwrap();
    assert_eq!(proven.name, GATEWAY);
    let May::Everything(gateway) = proven.may else { panic!("it may do less") };
    assert_eq!((gateway.name(), gateway.net(), gateway.gateway()), (GATEWAY, Net(7), GatewayId(0xA1)));
    let group = ends.client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(ends.server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    ends.client.writer().write_all(b"batch").unwrap();
    let mut wire = Vec::new();
    ends.client.write_tls(&mut wire).unwrap();
    ends.server.read_tls(&mut &wire[..]).unwrap();
    ends.server.process_new_packets().unwrap();
    let mut read = [0; 5];
    ends.server.reader().read_exact(&mut read).unwrap();
    assert_eq!(&read, b"batch");
}

#[test]
fn the_cloud_takes_an_address_as_its_name_too() {
    let operator = Operator::new();
    let ends = shake_as(&Arc::new(operator.client()), &Arc::new(operator.server()), "127.0.0.1");
    assert!(ends.client_end.is_ok() && ends.server_end.is_ok());
}

#[test]
fn every_client_that_is_no_gateway_of_this_operator_is_refused_as_e4_01() {
    let operator = Operator::new();
    let good = || uri("urn:gw:00000007:000000a1");
    let (client, server) = (Eku::ClientAuth, Eku::ServerAuth);
    let month = (-1, 30);
    let strangers = [
        ("no purpose", operator.odd(&[], &[good()], month), "clientAuth alone"),
        ("the cloud's purpose", operator.odd(std::slice::from_ref(&server), &[good()], month), "another purpose"),
        ("both purposes", operator.odd(&[client.clone(), server], &[good()], month), "clientAuth alone"),
        ("one purpose more", operator.odd(&[client.clone(), Eku::CodeSigning], &[good()], month), "clientAuth alone"),
        ("a DNS name", operator.odd(std::slice::from_ref(&client), &[dns(CLOUD)], month), "urn:gw:"),
        ("a DNS name more", operator.odd(std::slice::from_ref(&client), &[good(), dns(CLOUD)], month), "urn:gw:"),
        (
            "two gateways",
            operator.odd(std::slice::from_ref(&client), &[good(), uri("urn:gw:00000007:000000a2")], month),
            "urn:gw:",
        ),
        ("no name", operator.odd(std::slice::from_ref(&client), &[], month), "urn:gw:"),
        (
            "upper case",
            operator.odd(std::slice::from_ref(&client), &[uri("urn:gw:00000007:000000A1")], month),
            "urn:gw:",
        ),
        (
            "another urn",
            operator.odd(std::slice::from_ref(&client), &[uri("urn:node:00000007:000000a1")], month),
            "urn:gw:",
        ),
        ("expired", operator.odd(std::slice::from_ref(&client), &[good()], (-30, -1)), "expired"),
        ("not valid yet", operator.odd(&[client], &[good()], (1, 30)), "not valid yet"),
        ("the cloud's own", operator.cloud(), "another purpose"),
        ("a device's", operator.issue(&Role::Device(DEVICE)), "clientAuth alone"),
        ("a key for receipts", operator.issue(&Role::Receipts(GATEWAY)), "clientAuth alone"),
        ("another operator's", Operator::new().gateway(), "operator's CA"),
    ];
    for (what, identity, reason) in strangers {
        let ends = shake(operator.client_with(identity), operator.server());
        let rejected = at_server(&ends);
        assert_eq!(rejected.code, Code::ChannelRefused, "{what}");
        assert!(rejected.reason.contains(reason), "{what}: {rejected}");
        assert_eq!(at_client(&ends).code, Code::ChannelRefused, "{what}: the client learns of it");
        assert!(prove_gateway(&ends.server, &operator.roll.load(), now()).is_err(), "{what}");
    }
}

#[test]
fn a_client_without_a_certificate_is_refused_as_e4_01() {
    let operator = Operator::new();
    let ends = shake(client_config_api(&operator.ca, Groups::HybridOnly).unwrap(), operator.server());
    assert_eq!(at_server(&ends), Rejected::new(Code::ChannelRefused, "no client certificate"));
}

#[test]
fn a_certificate_that_was_revoked_is_refused_from_the_next_handshake_on() {
    let operator = Operator::new();
    let identity = operator.gateway();
    let (client, server) = (Arc::new(operator.client_with(identity.clone())), Arc::new(operator.server()));
    let open = shake_as(&client, &server, CLOUD);
    assert!(open.server_end.is_ok() && operator.roll.load().is_in_force(identity.serial()));
    operator.revoke(&identity);
    assert!(at_server(&shake_as(&client, &server, CLOUD)).reason.contains("revoked"));
    // What is open is closed by whoever asks again.
    let again = prove_gateway(&open.server, &operator.roll.load(), now());
    assert_eq!(again.map_err(|r| r.code), Err(Code::ChannelRefused));
    assert!(!operator.roll.load().is_in_force(identity.serial()));
    // A renewed certificate of the same gateway is taken.
    assert!(shake_as(&Arc::new(operator.client()), &server, CLOUD).server_end.is_ok());
}

#[test]
fn a_certificate_that_is_not_in_the_book_is_refused_whoever_signed_it() {
    let operator = Operator::new();
    let good = operator.odd(&[Eku::ClientAuth], &[uri("urn:gw:00000007:000000a1")], (-1, 30));
    let rejected = at_server(&shake(operator.client_with(good.clone()), operator.server()));
    assert_eq!(rejected, Rejected::new(Code::ChannelRefused, "the certificate is not in the operator's book"));
    // Nor under a serial number that the book has for another.
    operator.enter(&good, GatewayName { net: Net(8), ..GATEWAY }, Standing::InForce);
    let rejected = at_server(&shake(operator.client_with(good.clone()), operator.server()));
    assert!(rejected.reason.contains("not in the operator's book"), "{rejected}");
    operator.enter(&good, GATEWAY, Standing::InForce);
    assert!(shake(operator.client_with(good), operator.server()).server_end.is_ok());
}

#[test]
fn a_certificate_that_has_ended_may_ask_for_the_next_one_and_only_by_the_operators_word() {
    let operator = Operator::new();
    let ended = operator.issue_by(&operator.authority, &Role::Gateway(GATEWAY.net, GATEWAY.gateway), 40);
    let prove = || {
        let ends = shake(operator.client_with(ended.clone()), operator.server());
        ends.server_end.map_err(|e| classify_tls(&e))?;
        prove_gateway(&ends.server, &operator.roll.load(), now())
    };
    assert!(prove().unwrap_err().reason.contains("expired"));
    operator.enter(&ended, GATEWAY, Standing::Late { until: now().plus(60_000) });
    assert_eq!(prove().map(|p| (p.name, p.may)), Ok((GATEWAY, May::Renew)));
    operator.enter(&ended, GATEWAY, Standing::Late { until: Millis(now().0 - 1000) });
    assert!(prove().unwrap_err().reason.contains("expired"), "the word has run out");
    operator.enter(&ended, GATEWAY, Standing::Revoked);
    assert_eq!(prove().unwrap_err().code, Code::ChannelRefused);
    // The word helps no certificate of another CA.
    let foreign = Operator::new();
    let other = foreign.issue_by(&foreign.authority, &Role::Gateway(GATEWAY.net, GATEWAY.gateway), 40);
    operator.enter(&other, GATEWAY, Standing::Late { until: now().plus(60_000) });
    let rejected = at_server(&shake(operator.client_with(other), operator.server()));
    assert!(rejected.reason.contains("operator's CA"), "{rejected}");
    // Before its end, the word takes nothing away.
    let valid = operator.gateway();
    operator.enter(&valid, GATEWAY, Standing::Late { until: now().plus(60_000) });
    let ends = shake(operator.client_with(valid), operator.server());
    let proven = prove_gateway(&ends.server, &operator.roll.load(), now()).unwrap();
    assert!(matches!(proven.may, May::Everything(_)));
}

#[test]
fn an_issuing_key_makes_gateways_and_can_make_nothing_else() {
    let operator = Operator::new();
    let (certificate, key) = operator.authority.create_issuer(now().0 / 1000, 365).unwrap();
    let issuing = Authority::load(&certificate, &key).unwrap();
    let gateway = operator.issue_by(&issuing, &Role::Gateway(GATEWAY.net, GATEWAY.gateway), 0);
    gateway.check_chain(&operator.ca, now()).unwrap();
    assert!(gateway.check_chain(&Operator::new().ca, now()).is_err());
    let ends = shake(operator.client_with(gateway), operator.server());
    assert!(ends.server_end.is_ok() && ends.client_end.is_ok());
    // Whoever stole it signs what it likes; no gateway and no client of the API takes any of it for the cloud.
    let stolen = || Issuer::from_ca_cert_pem(&certificate, KeyPair::try_from(&key[..]).unwrap()).unwrap();
    for purposes in [vec![Eku::ServerAuth], vec![Eku::ServerAuth, Eku::ClientAuth], vec![]] {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = purposes.clone();
        params.subject_alt_names = vec![dns(CLOUD)];
        params.is_ca = IsCa::ExplicitNoCa;
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2025, 1, 1), rcgen::date_time_ymd(2054, 1, 1));
        let chain = params.signed_by(&key, &stolen()).unwrap().pem() + &certificate;
        let cloud = Identity::from_pkcs8(chain.as_bytes(), &key.serialize_der()).unwrap();
        for client in [operator.client(), client_config_api(&operator.ca, Groups::HybridOnly).unwrap()] {
            let rejected = at_client(&shake(client, operator.server_with(cloud.clone())));
            assert_eq!(rejected.code, Code::ChannelRefused, "{purposes:?}: {rejected}");
        }
        // Not even where nobody asks for more than webpki does.
        let mut roots = rustls::RootCertStore::empty();
        let pem = operator.authority.certificate().as_bytes();
        roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(pem).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(weaker(aws_lc_rs::DEFAULT_KX_GROUPS.to_vec()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let rejected = at_client(&shake(client, operator.server_with(cloud)));
        assert_eq!(rejected.code, Code::ChannelRefused, "{purposes:?}: {rejected}");
    }
    // A second authority under it counts for nothing, for gateways neither.
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2025, 1, 1), rcgen::date_time_ymd(2054, 1, 1));
    let second = params.signed_by(&key, &stolen()).unwrap().pem() + &certificate;
    let below = Authority::load(&second, &key.serialize_der()).unwrap();
    let gateway = operator.issue_by(&below, &Role::Gateway(GATEWAY.net, GATEWAY.gateway), 0);
    assert_eq!(at_server(&shake(operator.client_with(gateway), operator.server())).code, Code::ChannelRefused);
}

#[test]
fn enrolment_knows_the_cloud_by_its_ca_or_by_that_ones_hash() {
    let operator = Operator::new();
    let pem = operator.authority.certificate().as_bytes();
    let server = |o: &Operator| server_config_enrol(&LiveIdentity::new(o.cloud()), pem, Groups::HybridOnly).unwrap();
    let hash = certificate_hash(pem).unwrap();
    for pin in [Pin::Anchor(operator.ca.clone()), Pin::Hash(hash)] {
        assert!(pin.fits(pem));
        let client = || client_config_enrol(&pin, Groups::HybridOnly).unwrap();
        let ends = shake(client(), server(&operator));
        assert!(ends.client_end.is_ok() && ends.server_end.is_ok(), "{pin:?}: {:?}", ends.client_end);
        assert_eq!(ends.client.alpn_protocol(), Some(fivefold_keep::tls::ENROL));
        // Another cloud that shows this CA, this operator's gateway, another name.
        let rejected = at_client(&shake(client(), server(&Operator::new())));
        assert_eq!(rejected.code, Code::ChannelRefused);
        let mut disguised = server(&operator);
        disguised.cert_resolver = Arc::new(LiveIdentity::new(operator.gateway()));
        assert_eq!(at_client(&shake(client(), disguised)).code, Code::ChannelRefused);
        let ends = shake_as(&Arc::new(client()), &Arc::new(server(&operator)), "other.example");
        assert_eq!(at_client(&ends).code, Code::ChannelRefused);
        // A connection for enrolment is nobody's.
        assert!(prove_gateway(&ends.server, &operator.roll.load(), now()).is_err());
    }
    let other = Pin::Hash([7; 32]);
    assert!(!other.fits(pem));
    let rejected = at_client(&shake(client_config_enrol(&other, Groups::HybridOnly).unwrap(), server(&operator)));
    assert!(rejected.reason.contains("hash that was given"), "{rejected}");
    let rejected = at_client(&shake(
        client_config_enrol(&Pin::Anchor(Operator::new().ca), Groups::HybridOnly).unwrap(),
        server(&operator),
    ));
    assert!(rejected.reason.contains("operator's CA"), "{rejected}");
}

#[test]
fn only_who_asks_for_enrolment_and_nothing_else_gets_it() {
    let operator = Operator::new();
    let asks = |alpn: &[&[u8]]| {
        let mut config = operator.client();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let mut client = ClientConnection::new(Arc::new(config), CLOUD.try_into().unwrap()).unwrap();
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        let mut acceptor = rustls::server::Acceptor::default();
        acceptor.read_tls(&mut &wire[..]).unwrap();
        let accepted = acceptor.accept().map_err(|(e, _)| e).unwrap().unwrap();
        wants_enrolment(&accepted.client_hello())
    };
    assert!(asks(&[fivefold_keep::tls::ENROL]));
    let (h2, enrol): (&[u8], _) = (b"h2", fivefold_keep::tls::ENROL);
    for other in [&[][..], &[h2], &[h2, enrol], &[enrol, h2]] {
        assert!(!asks(other), "{other:?}");
    }
}

#[test]
fn a_resumed_connection_is_asked_again_for_role_time_and_revocation() {
    let operator = Operator::new();
    let gateway = operator.gateway();
    let mut client = operator.client_with(gateway.clone());
    client.resumption = Resumption::in_memory_sessions(4);
    let (client, server) = (Arc::new(client), Arc::new(operator.server()));
    assert_eq!(shake_as(&client, &server, CLOUD).server.handshake_kind(), Some(HandshakeKind::Full));
    let resumed = shake_as(&client, &server, CLOUD);
    assert_eq!(resumed.server.handshake_kind(), Some(HandshakeKind::Resumed), "the test resumes nothing");
    assert_eq!(prove_gateway(&resumed.server, &operator.roll.load(), now()).map(|p| p.name), Ok(GATEWAY));
    let later = now().plus(31 * 86_400_000);
    assert_eq!(
        prove_gateway(&resumed.server, &operator.roll.load(), later).map_err(|r| r.code),
        Err(Code::ChannelRefused)
    );
    operator.revoke(&gateway);
    let resumed = shake_as(&client, &server, CLOUD);
    assert_eq!(resumed.server.handshake_kind(), Some(HandshakeKind::Resumed));
    let refused = prove_gateway(&resumed.server, &operator.roll.load(), now()).unwrap_err();
    assert_eq!((refused.code, refused.reason), (Code::ChannelRefused, "the gateway or its certificate is revoked"));
}

#[test]
fn our_clients_resume_nothing_and_nobody_sends_early_data() {
    let operator = Operator::new();
    let (client, server) = (Arc::new(operator.client()), Arc::new(operator.server()));
    for _ in 0..2 {
        assert_eq!(shake_as(&client, &server, CLOUD).server.handshake_kind(), Some(HandshakeKind::Full));
    }
    assert!(!client.enable_early_data && server.max_early_data_size == 0);
}

#[test]
fn every_server_that_is_not_the_cloud_is_refused_as_e4_01() {
    let operator = Operator::new();
    let server = Eku::ServerAuth;
    let month = (-1, 30);
    let strangers = [
        ("a gateway's certificate", operator.gateway(), "serverAuth alone"),
        ("a gateway's with a name", operator.odd(&[Eku::ClientAuth], &[dns(CLOUD)], month), "serverAuth alone"),
        ("both purposes", operator.odd(&[Eku::ClientAuth, server.clone()], &[dns(CLOUD)], month), "serverAuth alone"),
        ("no purpose", operator.odd(&[], &[dns(CLOUD)], month), "serverAuth alone"),
        (
            "a gateway's name beside its own",
            operator.odd(std::slice::from_ref(&server), &[dns(CLOUD), uri("urn:gw:00000007:000000a1")], month),
            "DNS names or addresses",
        ),
        ("another name", operator.odd(std::slice::from_ref(&server), &[dns("other.example")], month), "another name"),
        ("no name", operator.odd(std::slice::from_ref(&server), &[], month), "DNS names or addresses"),
        ("expired", operator.odd(std::slice::from_ref(&server), &[dns(CLOUD)], (-30, -1)), "expired"),
        ("not valid yet", operator.odd(&[server], &[dns(CLOUD)], (1, 30)), "not valid yet"),
        ("a device's certificate", operator.issue(&Role::Device(DEVICE)), "serverAuth alone"),
        ("another operator's", Operator::new().cloud(), "operator's CA"),
    ];
    for (what, identity, reason) in strangers {
        for client in [operator.client(), client_config_api(&operator.ca, Groups::HybridOnly).unwrap()] {
            let ends = shake(client, operator.server_with(identity.clone()));
            let rejected = at_client(&ends);
            assert_eq!(rejected.code, Code::ChannelRefused, "{what}");
            assert!(rejected.reason.contains(reason), "{what}: {rejected}");
        }
    }
}

#[test]
fn a_revoked_certificate_of_the_cloud_is_refused_by_gateways() {
    let operator = Operator::new();
    let cloud = operator.cloud();
    operator.revoked.store(Arc::new(Revoked::from([cloud.serial().clone()])));
    let ends = shake(operator.client(), operator.server_with(cloud));
    assert_eq!(at_client(&ends), Rejected::new(Code::ChannelRefused, "the cloud's certificate is revoked"));
}

fn weaker(groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() })
}

/// A client of another make: its own groups and suites, a good certificate.
fn foreign_client(operator: &Operator, provider: Arc<CryptoProvider>) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let pem = operator.authority.certificate().as_bytes();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(pem).unwrap()).unwrap();
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(LiveIdentity::new(operator.gateway())))
}

#[test]
fn a_peer_without_the_hybrid_group_is_refused_as_e4_07_unless_policy_allows_it() {
    use aws_lc_rs::kx_group::{SECP256R1, X25519};
    let operator = Operator::new();
    let ends = shake(foreign_client(&operator, weaker(vec![X25519, SECP256R1])), operator.server());
    assert_eq!(at_server(&ends).code, Code::ChannelNotHybrid);

    let lax_server = || {
        let identity = LiveIdentity::new(operator.cloud());
        server_config_e4(&identity, &operator.ca, operator.roll.clone(), Groups::DangerAllowX25519).unwrap()
    };
    let ends = shake(foreign_client(&operator, weaker(vec![X25519])), lax_server());
    assert!(ends.server_end.is_ok() && ends.client_end.is_ok());
    let ends = shake(foreign_client(&operator, weaker(vec![SECP256R1])), lax_server());
    assert_eq!(at_server(&ends).code, Code::ChannelNotHybrid);

    // The other way round: our gateway, and a cloud of another make.
    let weak_server = ServerConfig::builder_with_provider(weaker(vec![X25519]))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(LiveIdentity::new(operator.cloud())));
    let ends = shake(operator.client(), weak_server);
    assert_eq!(at_client(&ends).code, Code::ChannelNotHybrid);
}

#[test]
fn a_client_that_has_only_aes_128_is_refused() {
    let operator = Operator::new();
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    };
    let ends = shake(foreign_client(&operator, Arc::new(provider)), operator.server());
    assert_eq!(at_server(&ends), Rejected::new(Code::ChannelRefused, "no cipher suite in common"));
}

/// A ClientHello of TLS 1.2: it has no supported_versions.
fn hello_of_tls_12() -> Vec<u8> {
    let extensions = [
        &[0x00, 0x0A, 0, 4, 0, 2, 0x00, 0x1D][..], // supported_groups: x25519
        &[0x00, 0x0B, 0, 2, 1, 0],                 // ec_point_formats
        &[0x00, 0x0D, 0, 4, 0, 2, 0x04, 0x03],     // signature_algorithms: ecdsa_secp256r1_sha256
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 4, 0xC0, 0x2B, 0xC0, 0x2C, 1, 0, 0, extensions.len() as u8]);
    body.extend_from_slice(&extensions);
    let mut record = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    record.extend_from_slice(&body);
    record
}

#[test]
fn tls_1_2_and_what_is_no_tls_at_all_are_refused_as_e4_01() {
    let operator = Operator::new();
    for (bytes, reason) in
        [(hello_of_tls_12(), "no TLS 1.3"), (b"POST /v1/ingest HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "no TLS")]
    {
        let mut server = ServerConnection::new(Arc::new(operator.server())).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        let rejected = classify_tls(&server.process_new_packets().unwrap_err());
        assert_eq!(rejected.code, Code::ChannelRefused);
        assert!(rejected.reason.contains(reason), "{rejected}");
    }
    // A server that answers by TLS 1.2.
    let mut client = ClientConnection::new(Arc::new(operator.client()), CLOUD.try_into().unwrap()).unwrap();
    client.write_tls(&mut Vec::new()).unwrap();
    let mut hello = vec![22, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
    hello.extend_from_slice(&[9; 32]);
    hello.extend_from_slice(&[0, 0xC0, 0x2B, 0]);
    client.read_tls(&mut &hello[..]).unwrap();
    let rejected = classify_tls(&client.process_new_packets().unwrap_err());
    assert_eq!(rejected.code, Code::ChannelRefused, "{rejected}");
}

#[test]
fn a_new_certificate_is_shown_from_the_next_handshake_on() {
    let operator = Operator::new();
    let (cloud, gateway) = (LiveIdentity::new(operator.cloud()), LiveIdentity::new(operator.gateway()));
    let (roll, revoked) = (operator.roll.clone(), operator.revoked.clone());
    let server = Arc::new(server_config_e4(&cloud, &operator.ca, roll, Groups::HybridOnly).unwrap());
    let client = Arc::new(client_config_e4(&gateway, &operator.ca, revoked, Groups::HybridOnly).unwrap());
    let shown = || {
        let ends = shake_as(&client, &server, CLOUD);
        (ends.client.peer_certificates().unwrap()[0].to_vec(), ends.server.peer_certificates().unwrap()[0].to_vec())
    };
    let before = shown();
    assert_eq!(before, shown());
    cloud.replace(operator.cloud());
    gateway.replace(operator.gateway());
    let after = shown();
    assert_ne!(before.0, after.0);
    assert_ne!(before.1, after.1);
}

#[test]
fn nobody_starts_with_a_certificate_of_another_role_gateway_or_key() {
    let operator = Operator::new();
    let (cloud, gateway) = (operator.cloud(), operator.gateway());
    let live = |identity: &Identity| LiveIdentity::new(identity.clone());
    assert!(matches!(
        server_config_e4(&live(&gateway), &operator.ca, operator.roll.clone(), Groups::HybridOnly),
        Err(TlsError::WrongRole(_))
    ));
    assert!(matches!(server_config_api(&live(&gateway)), Err(TlsError::WrongRole(_))));
    assert!(matches!(
        client_config_e4(&live(&cloud), &operator.ca, operator.revoked.clone(), Groups::HybridOnly),
        Err(TlsError::WrongRole(_))
    ));
    gateway.require_gateway(GATEWAY).unwrap();
    let elsewhere = GatewayName { net: Net(8), ..GATEWAY };
    let error = gateway.require_gateway(elsewhere).unwrap_err();
    assert!(error.to_string().contains("urn:gw:00000007:000000a1"), "{error}");
    let (from, to) = gateway.validity();
    assert!(from < now() && now() < to && to.since(from) <= 90 * 86_400_000);

    let issue = || operator.authority.issue(&Role::Gateway(Net(7), GatewayId(1)), now().0 / 1000, 30).unwrap();
    let (one, other) = (issue(), issue());
    let mixed = Identity::from_pkcs8(one.certified.chain.as_bytes(), &other.key);
    assert!(matches!(mixed, Err(TlsError::KeyMismatch)));
    assert!(matches!(Identity::from_pkcs8(b"nothing", &one.key), Err(TlsError::NoCertificate)));
    assert!(matches!(Identity::from_pkcs8(one.certified.chain.as_bytes(), b"nothing"), Err(TlsError::NoKey)));
    assert!(matches!(Identity::from_pem(one.certified.chain.as_bytes(), b"nothing"), Err(TlsError::NoKey)));
    assert!(matches!(Anchor::from_pem(b""), Err(TlsError::NoCertificate)));
    assert!(!format!("{gateway:?}").contains("key"));
}

#[test]
fn the_api_takes_clients_without_a_certificate_and_proves_no_gateway() {
    let operator = Operator::new();
    let server = server_config_api(&LiveIdentity::new(operator.cloud())).unwrap();
    let ends = shake(client_config_api(&operator.ca, Groups::HybridOnly).unwrap(), server);
    assert!(ends.client_end.is_ok() && ends.server_end.is_ok());
    let refused = prove_gateway(&ends.server, &Roll::default(), now()).unwrap_err();
    assert_eq!(refused, Rejected::new(Code::ChannelRefused, "no client certificate"));
}

#[test]
fn a_code_is_found_inside_the_errors_of_those_who_carry_tls() {
    let tls = || rustls::Error::PeerIncompatible(rustls::PeerIncompatible::NoKxGroupsInCommon);
    let carried = io::Error::new(io::ErrorKind::InvalidData, tls());
    assert_eq!(classify(&carried).map(|r| r.code), Some(Code::ChannelNotHybrid));
    let twice = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls()));
    assert_eq!(classify(&twice).map(|r| r.code), Some(Code::ChannelNotHybrid));
    assert_eq!(classify(&io::Error::new(io::ErrorKind::ConnectionRefused, "nobody there")), None);
}
