//! Certificates of gateways and of the cloud (docs/protocol.md 10.1): who got one, for which key, by whose word, and which
//! still count. A certificate that is not in this book counts for nothing, whoever signed it.
//!
//! Every rule about who may be certified stands here, in one transaction with the row that comes of it: what was answered
//! once is answered again to the same request, so that a lost answer costs nothing.

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{GatewayId, Net};
use fivefold_core::time::Millis;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::deeds::{Done, Makes};
use super::{Gateway, Registry, RegistryError, Result, hidden};
use crate::ca::{Authority, CaError, Certified, LONGEST_DAYS, SpkiHash};
use crate::enrol::{Grant, Refused, Request, Token};
use crate::tls::{Roll, Serial, Standing};

/// Certificates that a gateway gets in 24 hours, at most.
const A_DAY: u32 = 4;

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose; `None`: the cloud's.
    pub gateway: Option<GatewayId>,
    /// Serial number, lower-case hex.
    pub serial: String,
    /// When it begins to be valid, Unix seconds.
    pub not_before: u64,
    /// When it ends, Unix seconds.
    pub not_after: u64,
    /// Which key it is for.
    pub spki: SpkiHash,
    /// When it was revoked, Unix seconds.
    pub revoked_at: Option<u64>,
}

/// What was done about certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A token for enrolment was made.
    Invited,
    /// A certificate was issued: by a token, or at the operator.
    Issued,
    /// A renewal after the end of the certificate was allowed.
    LateAllowed,
    /// A certificate was issued to whoever has the one before.
    Renewed,
    /// A certificate was revoked.
    Revoked,
}

impl Deed {
    const ALL: [Self; 5] = [Self::Invited, Self::Issued, Self::LateAllowed, Self::Renewed, Self::Revoked];

    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Issued => "issued",
            Self::LateAllowed => "late renewal allowed",
            Self::Renewed => "renewed",
            Self::Revoked => "revoked",
        }
    }
}

/// One line of the history: it only grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, Unix seconds.
    pub at: u64,
    /// About whom; `None`: the cloud.
    pub gateway: Option<GatewayId>,
    /// By whose word: `operator`, `cloud`, `token` with 8 digits of its hash, or `certificate` with its serial number.
    pub who: String,
    /// What.
    pub deed: Deed,
    /// Of the certificate.
    pub serial: Option<String>,
    /// Of the key.
    pub spki: Option<SpkiHash>,
}

/// By whose word something is done, and when.
#[derive(Clone, Copy, Debug)]
pub struct Word<'a> {
    /// Who.
    pub who: &'a str,
    /// When, Unix seconds.
    pub at: u64,
}

/// Why no certificate came out.
#[derive(Debug, thiserror::Error)]
pub enum NotIssued {
    /// A rule is against it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no key here to sign with.
    #[error("there is no issuing key here: the operator signs (fivefold gateway sign)")]
    NoIssuer,
    /// The book failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The certificate could not be made.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// A certificate, and the gateway that it is for.
#[derive(Clone, Debug)]
pub struct IssuedTo {
    /// The gateway.
    pub gateway: Gateway,
    /// Its certificate, and that of the issuing key after it, PEM.
    pub chain: String,
}

// Inside a transaction: what SQLite says, or a rule.
pub(super) enum Stop {
    Database(rusqlite::Error),
    Refused(Refused),
    Ca(CaError),
}

impl From<rusqlite::Error> for Stop {
    fn from(e: rusqlite::Error) -> Self {
        Self::Database(e)
    }
}

impl From<Refused> for Stop {
    fn from(e: Refused) -> Self {
        Self::Refused(e)
    }
}

impl From<CaError> for Stop {
    fn from(e: CaError) -> Self {
        Self::Ca(e)
    }
}

pub(super) type Ruled<T> = std::result::Result<T, Stop>;

/// A certificate's row, as far as the rules look at it.
struct Held {
    gateway: Option<u32>,
    spki: [u8; 32],
    receipts: Option<Vec<u8>>,
    chain: String,
    not_after: u64,
    revoked: bool,
}

impl Registry {
    /// Makes a token for a gateway's enrolment, good until `expires_at`; only its hash is kept. Tokens of that gateway that
    /// were not used are good for nothing any more.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] for a revoked gateway, [`RegistryError::Vault`].
    pub fn invite_gateway(&mut self, gateway: &Gateway, expires_at: u64, word: Word<'_>) -> Result<Token> {
        if gateway.revoked_at.is_some() {
            return Err(RegistryError::Refused(format!("gateway {} is revoked; add a new one", gateway.name)));
        }
        let token = Token::draw(gateway.certified_as())?;
        let gw = gateway.gateway;
        self.note(Done::new("gateway invited", format_args!("gateway {}", gateway.name)), |tx| {
            tx.execute("DELETE FROM enrolments WHERE gw = ? AND serial IS NULL", [gw.0])?;
            tx.execute(
                "INSERT INTO enrolments VALUES (?, ?, ?, NULL)",
                params![token.hash(), gw.0, expires_at as i64],
            )?;
            Ok(log(tx, word, Some(gw), Deed::Invited, None)?)
        })?;
        Ok(token)
    }

    /// Whether a token is there at all, and not too old for what it was not used for. [`enrol_gateway`](Self::enrol_gateway)
    /// asks again; this one is for telling strangers nothing.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub fn may_enrol(&self, token: &Token, now: u64) -> std::result::Result<(), NotIssued> {
        let sql = "SELECT expires_at, serial IS NOT NULL FROM enrolments WHERE hash = ?";
        let row = |r: &Row<'_>| Ok((hidden(r.get(0)?), r.get::<_, bool>(1)?));
        match self.db.query_row(sql, [token.hash()], row).optional().map_err(|e| self.failed(e))? {
            None => Err(Refused::TokenUnknown.into()),
            Some((expires_at, false)) if expires_at <= now => Err(Refused::TokenExpired.into()),
            Some(_) => Ok(()),
        }
    }

    /// A gateway's first certificate, by its token: for the keys of the first request that comes with it, and no other.
    /// Certificates that the gateway had are revoked: whoever enrols again has lost them, or had them stolen.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub fn enrol_gateway(
        &mut self,
        authority: &Authority,
        token: &Token,
        request: &Request,
        now: u64,
    ) -> std::result::Result<IssuedTo, NotIssued> {
        let hash = token.hash();
        let who = format!("token {}", hex::encode(hash.get(..4).unwrap_or_default()));
        self.ruled(Done::new("gateway enrolled", format_args!("gateway {}", request.name())), |tx| {
            let sql = "SELECT gw, expires_at, serial FROM enrolments WHERE hash = ?";
            let row = |r: &Row<'_>| Ok((r.get::<_, u32>(0)?, hidden(r.get(1)?), r.get::<_, Option<String>>(2)?));
            let (gw, expires_at, used) = tx.query_row(sql, [hash], row).optional()?.ok_or(Refused::TokenUnknown)?;
            may_be_certified(tx, request.name(), gw)?;
            if let Some(serial) = used {
                let held = held(tx, "serial", &serial)?.filter(|h| is_answer(h, request));
                return Ok((gw, held.ok_or(Refused::TokenUsed)?.chain));
            }
            if expires_at <= now {
                return Err(Refused::TokenExpired.into());
            }
            are_new(tx, request)?;
            let word = Word { who: &who, at: now };
            revoke(tx, word, "gw = ?1", &gw)?;
            let certified = certify(tx, authority, request, Deed::Issued, word)?;
            tx.execute("UPDATE enrolments SET serial = ? WHERE hash = ?", params![certified.serial, hash])?;
            Ok((gw, certified.chain))
        })
    }

    /// A gateway's next certificate, by the one that it has: `serial`, which the connection proved. After the end of that
    /// one only where the operator allowed it, and once.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub fn renew_gateway(
        &mut self,
        authority: &Authority,
        serial: &Serial,
        request: &Request,
        now: u64,
    ) -> std::result::Result<IssuedTo, NotIssued> {
        let serial = serial.to_string();
        let who = format!("certificate {serial}");
        self.ruled(Done::new("certificate renewed", format_args!("gateway {}", request.name())), |tx| {
            let present = held(tx, "serial", &serial)?.filter(|h| !h.revoked).ok_or(Refused::Gateway)?;
            let gw = present.gateway.ok_or(Refused::Gateway)?;
            may_be_certified(tx, request.name(), gw)?;
            let spki = SpkiHash::of(request.tls_spki()).0;
            if spki == present.spki {
                return Err(Refused::KeyUsed.into());
            }
            let next = held(tx, "spki", spki)?.filter(|h| h.gateway == Some(gw) && is_answer(h, request));
            if let Some(next) = next.filter(|h| h.not_after > now) {
                return Ok((gw, next.chain));
            }
            are_new(tx, request)?;
            if present.not_after <= now {
                let used =
                    tx.execute("DELETE FROM late_renewals WHERE gw = ? AND until > ?", params![gw, now as i64])?;
                if used == 0 {
                    return Err(Refused::Gateway.into());
                }
            }
            let sql = "SELECT count(*) FROM certificates WHERE gw = ? AND not_before > ?";
            let day = now.saturating_sub(86_400 + 300) as i64;
            if tx.query_row(sql, params![gw, day], |r| r.get::<_, u32>(0))? >= A_DAY {
                return Err(Refused::TooMany.into());
            }
            let certified = certify(tx, authority, request, Deed::Renewed, Word { who: &who, at: now })?;
            Ok((gw, certified.chain))
        })
    }

    /// A gateway's certificate by the operator's own hand, from a request that was carried to him.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub fn sign_gateway(
        &mut self,
        authority: &Authority,
        request: &Request,
        word: Word<'_>,
    ) -> std::result::Result<IssuedTo, NotIssued> {
        self.ruled(Done::new("certificate signed", format_args!("gateway {}", request.name())), |tx| {
            let gw = request.name().gateway.0;
            may_be_certified(tx, request.name(), gw)?;
            let spki = SpkiHash::of(request.tls_spki()).0;
            if let Some(had) = held(tx, "spki", spki)?.filter(|h| h.gateway == Some(gw) && is_answer(h, request)) {
                return Ok((gw, had.chain));
            }
            are_new(tx, request)?;
            let certified = certify(tx, authority, request, Deed::Issued, word)?;
            Ok((gw, certified.chain))
        })
    }

    /// Enters a certificate that was made at the operator: of a gateway with its key for receipts, or of the cloud.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn enter_certificate(
        &mut self,
        gateway: Option<(GatewayId, &[u8])>,
        certified: &Certified,
        word: Word<'_>,
    ) -> Result<()> {
        let (gw, receipts) = gateway.map_or((None, None), |(gw, receipts)| (Some(gw), Some(receipts)));
        let whose = gw.map_or_else(|| "the cloud".to_owned(), |gw| format!("gateway {gw}"));
        let done = Done::new("certificate entered", format_args!("{whose}, certificate {}", certified.serial));
        self.note(done, |tx| Ok(enter(tx, word, Deed::Issued, gw, certified, receipts)?))
    }

    /// Lets a gateway renew once with a certificate that has ended, until `until`.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] for a revoked gateway.
    pub fn allow_late_renewal(&mut self, gateway: &Gateway, until: u64, word: Word<'_>) -> Result<()> {
        if gateway.revoked_at.is_some() {
            return Err(RegistryError::Refused(format!("gateway {} is revoked; add a new one", gateway.name)));
        }
        let gw = gateway.gateway;
        self.note(Done::new("late renewal allowed", format_args!("gateway {}", gateway.name)), |tx| {
            let sql = "INSERT INTO late_renewals VALUES (?1, ?2) ON CONFLICT (gw) DO UPDATE SET until = ?2";
            tx.execute(sql, params![gw.0, until as i64])?;
            Ok(log(tx, word, Some(gw), Deed::LateAllowed, None)?)
        })
    }

    /// Revokes a certificate of the cloud: gateways refuse it as soon as they are told. Whether there was one.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when no certificate of the cloud has this number.
    pub fn revoke_cloud_certificate(&mut self, serial: &str, word: Word<'_>) -> Result<()> {
        let revoked = self
            .change(Done::new("certificate of the cloud revoked", format_args!("certificate {serial}")), |tx| {
                revoke(tx, word, "gw IS NULL AND serial = ?1", &serial)
            })?;
        if revoked > 0 {
            return Ok(());
        }
        Err(RegistryError::Refused(format!(
            "no certificate of the cloud that is in force has the number {serial}; see: fivefold cloud certificates"
        )))
    }

    /// All certificates that were ever issued, the oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn certificates(&self) -> Result<Vec<Certificate>> {
        let sql = "SELECT gw, serial, not_before, not_after, spki, revoked_at FROM certificates ORDER BY rowid";
        self.all(sql, |r| {
            Ok(Certificate {
                gateway: r.get::<_, Option<u32>>(0)?.map(GatewayId),
                serial: r.get(1)?,
                not_before: hidden(r.get(2)?),
                not_after: hidden(r.get(3)?),
                spki: SpkiHash(r.get(4)?),
                revoked_at: r.get::<_, Option<i64>>(5)?.map(hidden),
            })
        })
    }

    /// What was done about certificates, the oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn history(&self) -> Result<Vec<Event>> {
        self.all("SELECT at, gw, who, deed, serial, spki FROM history ORDER BY id", |r| {
            let deed: String = r.get(3)?;
            Ok(Event {
                at: hidden(r.get(0)?),
                gateway: r.get::<_, Option<u32>>(1)?.map(GatewayId),
                who: r.get(2)?,
                deed: Deed::ALL.into_iter().find(|d| d.as_str() == deed).ok_or(rusqlite::Error::InvalidQuery)?,
                serial: r.get(4)?,
                spki: r.get::<_, Option<[u8; 32]>>(5)?.map(SpkiHash),
            })
        })
    }

    /// Grows with every line of the history: whoever holds a [`Roll`] looks at it.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn history_version(&self) -> Result<u64> {
        let sql = "SELECT coalesce(max(id), 0) FROM history";
        self.db.query_row(sql, [], |r| r.get(0)).map(hidden).map_err(|e| self.failed(e))
    }

    /// Which certificates of gateways count, and for what.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn roll(&self) -> Result<Roll> {
        let sql = "SELECT c.serial, g.net, g.gw, c.revoked_at IS NOT NULL OR g.revoked_at IS NOT NULL, l.until
                   FROM certificates c JOIN gateways g ON g.gw = c.gw LEFT JOIN late_renewals l ON l.gw = c.gw";
        let entries = self.all(sql, |r| {
            let serial = hex::decode(r.get::<_, String>(0)?).map_err(|_| rusqlite::Error::InvalidQuery)?;
            let name = GatewayName { net: Net(r.get(1)?), gateway: GatewayId(r.get(2)?) };
            let standing = match (r.get(3)?, r.get::<_, Option<i64>>(4)?) {
                (true, _) => Standing::Revoked,
                (false, Some(until)) => Standing::Late { until: Millis(hidden(until).saturating_mul(1000)) },
                (false, None) => Standing::InForce,
            };
            Ok((Serial(serial), name, standing))
        })?;
        Ok(entries.into_iter().collect())
    }

    /// Serial numbers of certificates of the cloud that are revoked, in ascending order.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn revoked_of_cloud(&self) -> Result<Vec<Serial>> {
        let sql = "SELECT serial FROM certificates WHERE gw IS NULL AND revoked_at IS NOT NULL ORDER BY serial";
        self.all(sql, |r| hex::decode(r.get::<_, String>(0)?).map(Serial).map_err(|_| rusqlite::Error::InvalidQuery))
    }

    /// What a gateway is told with its certificate.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] when its network is gone.
    pub fn grant(&self, issued: &IssuedTo, ca: &str) -> Result<Grant> {
        let gateway = &issued.gateway;
        let network = self.network(&gateway.net.to_string())?;
        Ok(Grant {
            name: gateway.name.clone(),
            id: gateway.gateway.to_string(),
            net: gateway.net.to_string(),
            group: network.group.to_string(),
            did: gateway.did.to_string(),
            sid: gateway.sid.to_string(),
            pan: format!("{:04x}", network.pan),
            ca: ca.to_owned(),
            certificate: issued.chain.clone(),
        })
    }

    /// Keys for receipts of all gateways, the newest first.
    pub(super) fn receipt_keys(&self) -> Result<Vec<(GatewayId, Vec<u8>)>> {
        let sql = "SELECT gw, receipts FROM certificates
                   WHERE gw IS NOT NULL AND revoked_at IS NULL AND receipts IS NOT NULL ORDER BY rowid DESC";
        self.all(sql, |r| Ok((GatewayId(r.get(0)?), r.get(1)?)))
    }

    /// Runs `change` in one transaction. The version of the book stays: gateways are told nothing of it.
    fn note<T>(&mut self, done: Done, change: impl FnOnce(&Transaction<'_>) -> Ruled<T>) -> Result<T> {
        match self.ruled_transaction(&done, change) {
            Ok(done) => Ok(done),
            Err(NotIssued::Registry(e)) => Err(e),
            // Nothing that only notes refuses or certifies.
            Err(other) => Err(RegistryError::Refused(other.to_string())),
        }
    }

    fn ruled(
        &mut self,
        done: Done,
        certify: impl FnOnce(&Transaction<'_>) -> Ruled<(u32, String)>,
    ) -> std::result::Result<IssuedTo, NotIssued> {
        let (gw, chain) = self.ruled_transaction(&done, certify)?;
        Ok(IssuedTo { gateway: self.gateway(&GatewayId(gw).to_string())?, chain })
    }

    pub(super) fn ruled_transaction<T>(
        &mut self,
        done: &Done,
        run: impl FnOnce(&Transaction<'_>) -> Ruled<T>,
    ) -> std::result::Result<T, NotIssued> {
        let path = self.path.clone();
        let failed = |source| NotIssued::Registry(RegistryError::of(&path, source));
        let done = self.logged(done, Makes::NoVersion, |tx| run(tx).map(Some)).map_err(|stop| match stop {
            Stop::Database(source) => failed(source),
            Stop::Refused(refused) => refused.into(),
            Stop::Ca(error) => error.into(),
        })?;
        done.ok_or_else(|| failed(rusqlite::Error::QueryReturnedNoRows))
    }
}

/// Certifies both keys of a request for the gateway that it names, and enters that with one line of the history. Only the
/// certificate for TLS is handed out: the other one is for strangers, who get it with evidence.
fn certify(
    tx: &Transaction<'_>,
    authority: &Authority,
    request: &Request,
    deed: Deed,
    word: Word<'_>,
) -> Ruled<Certified> {
    let (name, receipts) = (request.name(), request.receipts_spki());
    let certified = authority.certify(request, word.at, LONGEST_DAYS)?;
    enter(tx, word, deed, Some(name.gateway), &certified, Some(receipts))?;
    super::receipts::certify(tx, authority, name, receipts, word.at)?;
    Ok(certified)
}

/// Enters a certificate and its line of the history.
fn enter(
    tx: &Connection,
    word: Word<'_>,
    deed: Deed,
    gw: Option<GatewayId>,
    certified: &Certified,
    receipts: Option<&[u8]>,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
        params![
            certified.serial,
            gw.map(|g| g.0),
            certified.not_before as i64,
            certified.not_after as i64,
            certified.spki.0,
            receipts,
            certified.chain
        ],
    )?;
    log(tx, word, gw, deed, Some((&certified.serial, &certified.spki)))
}

/// Revokes the certificates in force that `which` says, each with its line of the history. Returns how many.
pub(super) fn revoke(
    tx: &Connection,
    word: Word<'_>,
    which: &str,
    of: &dyn rusqlite::ToSql,
) -> rusqlite::Result<usize> {
    let sql = format!("SELECT serial, gw, spki FROM certificates WHERE revoked_at IS NULL AND {which}");
    let row = |r: &Row<'_>| Ok((r.get::<_, String>(0)?, r.get::<_, Option<u32>>(1)?, r.get::<_, [u8; 32]>(2)?));
    let found = tx.prepare(&sql)?.query_map([of], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
    for (serial, gw, spki) in &found {
        tx.execute("UPDATE certificates SET revoked_at = ? WHERE serial = ?", params![word.at as i64, serial])?;
        log(tx, word, gw.map(GatewayId), Deed::Revoked, Some((serial, &SpkiHash(*spki))))?;
    }
    Ok(found.len())
}

/// One line of the history.
pub(super) fn log(
    tx: &Connection,
    word: Word<'_>,
    gw: Option<GatewayId>,
    deed: Deed,
    about: Option<(&str, &SpkiHash)>,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO history (at, gw, who, deed, serial, spki) VALUES (?, ?, ?, ?, ?, ?)",
        params![
            word.at as i64,
            gw.map(|g| g.0),
            word.who,
            deed.as_str(),
            about.map(|(serial, _)| serial),
            about.map(|(_, spki)| spki.0)
        ],
    )?;
    Ok(())
}

fn held(tx: &Connection, column: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<Option<Held>> {
    let sql = format!(
        "SELECT gw, spki, receipts, chain, not_after, revoked_at IS NOT NULL FROM certificates WHERE {column} = ?"
    );
    let row = |r: &Row<'_>| {
        Ok(Held {
            gateway: r.get(0)?,
            spki: r.get(1)?,
            receipts: r.get(2)?,
            chain: r.get(3)?,
            not_after: hidden(r.get(4)?),
            revoked: r.get(5)?,
        })
    };
    tx.query_row(&sql, [value], row).optional()
}

/// Whether a certificate is what this request was answered with before.
fn is_answer(held: &Held, request: &Request) -> bool {
    !held.revoked
        && held.spki == SpkiHash::of(request.tls_spki()).0
        && held.receipts.as_deref() == Some(request.receipts_spki())
}

/// The gateway is registered under the name that the request asks for, and not revoked.
fn may_be_certified(tx: &Connection, name: GatewayName, gw: u32) -> Ruled<()> {
    let sql = "SELECT net, revoked_at IS NOT NULL FROM gateways WHERE gw = ?";
    let row = |r: &Row<'_>| Ok((r.get::<_, u32>(0)?, r.get::<_, bool>(1)?));
    match tx.query_row(sql, [gw], row).optional()? {
        None | Some((_, true)) => Err(Refused::Gateway.into()),
        Some((net, _)) if (Net(net), GatewayId(gw)) != (name.net, name.gateway) => Err(Refused::Name.into()),
        Some(_) => Ok(()),
    }
}

/// Neither key of a request was certified before, of whomever and for whatever.
fn are_new(tx: &Connection, request: &Request) -> Ruled<()> {
    let [tls, receipts] = request.keys();
    let sql = "SELECT count(*) FROM certificates WHERE spki IN (?, ?) OR receipts IN (?, ?)";
    let had: u32 =
        tx.query_row(sql, params![tls.0, receipts.0, request.tls_spki(), request.receipts_spki()], |r| r.get(0))?;
    if had == 0 { Ok(()) } else { Err(Refused::KeyUsed.into()) }
}
