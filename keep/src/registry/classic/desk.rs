//! What is looked at before classic devices are entered, one or many.

use std::collections::{HashMap, HashSet};

use fivefold_core::id::{Did, Net, Sid};
use fivefold_waspmote::Serial;

use super::super::enrolment::FREE;
use super::super::{Registry, Result};
use super::{ClassicDevice, ClassicSecret, NewClassic, check_keys, check_node_id, did_of, is_refused};

/// Looks at classic devices one after the other, and remembers what those before have.
pub(super) struct Desk<'r> {
    book: &'r Registry,
    networks: Vec<Net>,
    serials: HashMap<Serial, usize>,
    radios: HashMap<Did, String>,
    /// Short ids that are taken, or asked for by name, and the last one that was given out.
    free: HashMap<Net, (HashSet<Sid>, u16)>,
}

impl<'r> Desk<'r> {
    pub(super) fn new(book: &'r Registry, new: &[NewClassic]) -> Result<Self> {
        let mut radios = HashMap::new();
        for device in book.classic_devices()? {
            if let Some(eui) = device.dev_eui {
                radios.insert(eui, format!("device {}", device.serial));
            }
        }
        let mut free = HashMap::new();
        for one in new {
            if let std::collections::hash_map::Entry::Vacant(place) = free.entry(one.net) {
                place.insert((book.taken_short_ids(one.net)?, FREE.start));
            }
        }
        Ok(Self { book, networks: book.classic_networks()?, serials: HashMap::new(), radios, free })
    }

    pub(super) fn examine(
        &mut self,
        at: usize,
        new: &NewClassic,
        now_unix_s: u64,
        place: impl Fn(usize) -> String,
    ) -> Result<std::result::Result<ClassicDevice, String>> {
        let (serial, did) = (new.serial, did_of(new.serial));
        let before = self.serials.get(&serial).copied();
        self.serials.entry(serial).or_insert(at);
        if !self.networks.contains(&new.net) {
            return Ok(Err(
                "this network takes no classic devices; allow them: fivefold network set NAME --classic yes".into(),
            ));
        }
        if serial.is_zero() {
            return Ok(Err("a serial of zeros is what nodes send that cannot read theirs: it is nobody's (W1)".into()));
        }
        if let Some(same) = self.book.known_classic(serial)? {
            return Ok(Err(format!("device {serial} exists already (sid {})", same.sid)));
        }
        if let Some(before) = before {
            return Ok(Err(format!("device {serial} is there twice: {} has it already", place(before))));
        }
        if self.book.known_device(did)?.is_some() {
            return Ok(Err(format!(
                "{did} is the EUI-64 of another device; look at what the node prints as its serial"
            )));
        }
        if let Some(Err(why)) = new.node_id.as_deref().map(check_node_id) {
            return Ok(Err(why));
        }
        if let Err(why) = check_keys(&new.keys, new.words.as_deref()) {
            return Ok(Err(why));
        }
        if let Some(eui) = new.dev_eui {
            if let Some(other) = self.radios.get(&eui) {
                return Ok(Err(format!("{other} has the DevEUI {eui} already")));
            }
            self.radios.insert(eui, place(at));
        }
        let sid = match self.short_id(new) {
            Ok(sid) => sid,
            Err(why) => return Ok(Err(why)),
        };
        let [gateway_key, cloud_key] =
            [&new.keys.gateway, &new.keys.cloud].map(|k| k.as_ref().map(ClassicSecret::kind));
        let weak = [gateway_key, cloud_key].iter().flatten().any(|k| k.weakness.is_some_and(is_refused));
        Ok(Ok(ClassicDevice {
            did,
            sid,
            net: new.net,
            serial,
            node_id: new.node_id.clone(),
            table: new.table,
            dev_eui: new.dev_eui,
            profile: new.profile,
            gateway_key,
            cloud_key,
            words: new.words.clone().filter(|_| weak),
            added_at: now_unix_s,
            revoked_at: None,
        }))
    }

    fn short_id(&mut self, new: &NewClassic) -> std::result::Result<Sid, String> {
        let Some((taken, next)) = self.free.get_mut(&new.net) else { return Err("no network".into()) };
        let sid = match new.sid {
            Some(sid) if !sid.is_assignable() => {
                return Err(format!("sid {sid} is reserved: not 0000, fffe, ffff, nor e200 to e2ff (AR-38)"));
            }
            Some(sid) if taken.contains(&sid) => {
                return Err(format!("sid {sid} is taken in this network (AR-38); leave it out for a free one"));
            }
            Some(sid) => sid,
            None => {
                let found = (*next..FREE.end).map(Sid).find(|s| s.is_assignable() && !taken.contains(s));
                *next = found.map_or(FREE.end, |sid| sid.0 + 1);
                found.ok_or("this network has no free short id left")?
            }
        };
        taken.insert(sid);
        Ok(sid)
    }
}
