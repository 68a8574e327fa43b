//! Certificates of gateways' keys for receipts (docs/evidence.md 8): with one of them a stranger is shown whose receipt it
//! is. They stand apart from those for TLS, and no connection is made with one.
//!
//! A row stays for ever: a receipt of years ago is shown with the certificate of then. A key is revoked with the certificate
//! for TLS that it came with.

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{GatewayId, Net};
use fivefold_core::proof::KeyName;
use rusqlite::{Connection, Transaction, params};

use super::certificates::{Deed, Word, log};
use super::deeds::Done;
use super::{NotIssued, Registry, Result, hidden};
use crate::ca::{Authority, Certified, LONGEST_DAYS, chain_der};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS receipt_certificates ( -- of gateways' keys for receipts; only grows
    serial      TEXT PRIMARY KEY,          -- lower-case hex
    spki        BLOB NOT NULL,             -- SubjectPublicKeyInfo of the key, as in certificates.receipts
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    chain       TEXT NOT NULL              -- PEM, its own first, without the root
) STRICT;";

/// Keys for receipts, each with its gateway, when the last of its certificates for TLS ends, and when all were revoked.
const KEYS: &str = "SELECT receipts AS spki, gw, max(not_after) AS ends,
                           CASE WHEN count(*) = count(revoked_at) THEN max(revoked_at) END AS revoked_at
                    FROM certificates WHERE gw IS NOT NULL AND receipts IS NOT NULL GROUP BY receipts";

pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)
}

/// A gateway's key for receipts that has a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptSigner {
    /// Whose.
    pub gateway: GatewayId,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// Its certificates, the oldest first.
    pub certificates: Vec<ReceiptCertificate>,
    /// When it was revoked, Unix seconds.
    pub revoked_at: Option<u64>,
}

/// A certificate of such a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptCertificate {
    /// When it begins to be valid, Unix seconds.
    pub not_before: u64,
    /// When it ends, Unix seconds.
    pub not_after: u64,
    /// DER, its own first; the root, which every verifier has, does not stand in it.
    pub chain: Vec<Vec<u8>>,
}

impl ReceiptSigner {
    /// What names the key in a COSE header.
    pub fn name(&self) -> KeyName {
        KeyName::of(&self.spki)
    }

    /// A certificate that was valid all that time, Unix seconds.
    pub fn certificate_over(&self, from: u64, until: u64) -> Option<&ReceiptCertificate> {
        self.certificates.iter().find(|c| c.not_before <= from && until <= c.not_after)
    }
}

impl Registry {
    /// All keys for receipts that have a certificate, revoked ones too.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database).
    pub fn receipt_signers(&self) -> Result<Vec<ReceiptSigner>> {
        let sql = format!(
            "SELECT k.gw, k.spki, k.revoked_at, r.not_before, r.not_after, r.chain
             FROM receipt_certificates r JOIN ({KEYS}) k ON k.spki = r.spki ORDER BY k.spki, r.rowid"
        );
        let rows = self.all(&sql, |r| {
            let chain: String = r.get(5)?;
            Ok(ReceiptSigner {
                gateway: GatewayId(r.get(0)?),
                spki: r.get(1)?,
                revoked_at: r.get::<_, Option<i64>>(2)?.map(hidden),
                certificates: vec![ReceiptCertificate {
                    not_before: hidden(r.get(3)?),
                    not_after: hidden(r.get(4)?),
                    chain: chain_der(&chain),
                }],
            })
        })?;
        let mut signers: Vec<ReceiptSigner> = Vec::new();
        for row in rows {
            match signers.last_mut() {
                Some(last) if last.spki == row.spki => last.certificates.extend(row.certificates),
                _ => signers.push(row),
            }
        }
        Ok(signers)
    }

    /// Certifies every key for receipts that is in force and has no certificate as long as the one for TLS that it came with:
    /// whoever asked for that one, or the operator who drew both keys, has it. Says how many.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub fn certify_receipts(&mut self, authority: &Authority, word: Word<'_>) -> std::result::Result<usize, NotIssued> {
        self.ruled_transaction(&Done::new("keys for receipts certified", "of gateways that lacked it"), |tx| {
            let sql = format!(
                "SELECT k.spki, g.net, g.gw FROM ({KEYS}) k JOIN gateways g ON g.gw = k.gw
                 WHERE k.revoked_at IS NULL AND g.revoked_at IS NULL AND k.ends > ?1 AND NOT EXISTS
                 (SELECT 1 FROM receipt_certificates r WHERE r.spki = k.spki AND r.not_after >= min(k.ends, ?2))"
            );
            let ends = i64::try_from(authority.ends()).unwrap_or(i64::MAX);
            let mut query = tx.prepare(&sql)?;
            let lacking = query.query_map(params![word.at as i64, ends], |r| {
                let name = GatewayName { net: Net(r.get(1)?), gateway: GatewayId(r.get(2)?) };
                Ok((r.get::<_, Vec<u8>>(0)?, name))
            })?;
            let lacking = lacking.collect::<rusqlite::Result<Vec<_>>>()?;
            for (spki, name) in &lacking {
                let certified = certify(tx, authority, *name, spki, word.at)?;
                let about = (certified.serial.as_str(), &certified.spki);
                log(tx, word, Some(name.gateway), Deed::Issued, Some(about))?;
            }
            Ok(lacking.len())
        })
    }
}

/// Certifies one of them, and enters that. A line of the history is for whoever calls it.
pub(super) fn certify(
    tx: &Transaction<'_>,
    authority: &Authority,
    name: GatewayName,
    spki: &[u8],
    now: u64,
) -> super::certificates::Ruled<Certified> {
    let certified = authority.certify_receipts(name, spki, now, LONGEST_DAYS)?;
    tx.execute(
        "INSERT INTO receipt_certificates VALUES (?, ?, ?, ?, ?)",
        params![certified.serial, spki, certified.not_before as i64, certified.not_after as i64, certified.chain],
    )?;
    Ok(certified)
}
